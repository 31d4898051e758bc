"""tunewright fine-tunes Hugging Face language models from five configuration vocabularies."""

__version__ = "0.1.0"

"""Which weights train: full, freeze, LoRA and its variants; the coverage report; the no-op detector."""

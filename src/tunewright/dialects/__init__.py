"""Vocabularies: how a configuration written with another trainer's names and defaults becomes a RunConfig, and back."""

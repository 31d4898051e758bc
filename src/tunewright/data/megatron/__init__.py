"""Megatron's indexed token files: read, written, split, blended and cut into training sequences."""

"""Optimizers by name, and which weights go into which of their groups."""

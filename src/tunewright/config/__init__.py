"""Declarations: each parameter once, with its meaning, range and names in every vocabulary. Standard library only."""

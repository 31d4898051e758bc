"""Answers from a model: opening, batched generation, terminal chat."""

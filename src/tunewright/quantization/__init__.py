"""Weights with few bits: one file per library."""

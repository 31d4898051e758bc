"""Finds what is wrong with data sets that can be read: one module per theme, each finding a value with its first places."""

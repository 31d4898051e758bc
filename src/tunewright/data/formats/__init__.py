"""Rows to records: one module per format of data sets. Standard library only."""

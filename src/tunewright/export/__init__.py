"""Trained weights to something people can use: merge, check, shard."""

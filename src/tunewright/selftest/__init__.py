"""Proofs of what is promised about faults and exactness: `tunewright selftest` and `tunewright verify-resume`."""

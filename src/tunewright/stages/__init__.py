"""Algorithms: small objects that say which models and examples they need and compute a loss."""

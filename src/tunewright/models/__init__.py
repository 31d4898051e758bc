"""Models: finding, checking and opening them; tokenizers; what is where in each family."""

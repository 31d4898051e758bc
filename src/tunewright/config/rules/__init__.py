"""Rules between parameters: one small function each; `config.checks` runs them."""

"""Changes of a model's architecture, each a small function on its configuration or modules."""

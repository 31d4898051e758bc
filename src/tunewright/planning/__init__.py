"""What a run will need, before it begins: memory by component, and time."""

"""Fast paths, each with its slow twin, and the plan that chooses among them."""

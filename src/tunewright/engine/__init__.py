"""The training engine: loop, state, checkpoints, evaluation."""

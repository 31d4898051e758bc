"""The verbs of the command line: one light module each, with `run(argv) -> exit code`."""

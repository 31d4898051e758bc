"""`tunewright version`."""

from __future__ import annotations

from tunewright import __version__


def run(argv: list[str]) -> int:
    """Print the version."""
    print(f"tunewright {__version__}")
    return 0

"""What a configuration file may not do in any syntax. Standard library only."""

from __future__ import annotations

from typing import Final, NoReturn

from tunewright.errors import refuse

MAX_DEPTH: Final = 32
MAX_ALIASES: Final = 100

KeyPath = tuple[str, ...]


def too_deep(where: str) -> NoReturn:
    """Refuse a document nested deeper than MAX_DEPTH."""
    refuse(f"nested deeper than {MAX_DEPTH} levels", where=where, mend="write a flatter file")


def twice(path: str, key: str, first: int, second: int) -> NoReturn:
    """Refuse a key that is given on two lines."""
    refuse(f"{key}: given twice, on line {first} and on line {second}", where=f"{path}:{second}", mend="remove one of them")

"""What became of a fast path in a model: how many modules have it, and why the others have not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

REPLACED: Final = "another package gave them a forward"
"""Why modules whose forward is no longer that of their class are left alone."""


class Taken(NamedTuple):
    """`number`: modules that have the path. `others`: reason -> modules that it is meant for and that have it not."""

    number: int
    others: Mapping[str, int]


def counted(reasons: Iterable[str | None]) -> Taken:
    """One entry for each module that the path is meant for: None if it has it, else why not."""
    found = Counter(reasons)
    return Taken(found.pop(None, 0), {reason: number for reason, number in found.items() if reason is not None})

"""Rows into sequences of a given capacity: best-fit decreasing over the whole data set.

Best-fit decreasing uses at most 11/9 of the optimal number of bins plus one (Johnson 1973; Dosa 2007 for the constant).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_WORD = 1024


def pack(lengths: NDArray[np.int64] | Sequence[int], capacity: int) -> list[list[int]]:
    """Bins of row numbers, each row once, no bin over `capacity`; the same input gives the same bins.

    Takes rows from the longest to the shortest and puts each into the fullest bin that has room, or opens a new one. Rows of a
    bin, and bins by their first row, come in data order. Naive equivalent: scan all bins for the least room that suffices.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if len(sizes) and (sizes.min() < 1 or sizes.max() > capacity):
        raise ValueError(f"lengths must be 1 to {capacity}, found {sizes.min()} to {sizes.max()}")
    bins: list[list[int]] = []
    with_room: dict[int, list[int]] = defaultdict(list)
    rooms = _Integers(capacity)
    for row in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[row])
        room = rooms.at_least(size)
        if room is None:
            chosen, room = len(bins), capacity
            bins.append([])
        else:
            chosen = with_room[room].pop()
            if not with_room[room]:
                rooms.discard(room)
        bins[chosen].append(row)
        if room > size:
            with_room[room - size].append(chosen)
            rooms.add(room - size)
    return sorted(sorted(rows) for rows in bins)


class _Integers:
    """A set of integers up to `largest` that finds the least member from a given one on in a few operations.

    Members are bits of words of 1,024 bits; a summary has one bit per word that is not empty.
    """

    def __init__(self, largest: int) -> None:
        self._words = [0] * (largest // _WORD + 1)
        self._summary = 0

    def add(self, member: int) -> None:
        self._words[member // _WORD] |= 1 << member % _WORD
        self._summary |= 1 << member // _WORD

    def discard(self, member: int) -> None:
        self._words[member // _WORD] &= ~(1 << member % _WORD)
        if not self._words[member // _WORD]:
            self._summary &= ~(1 << member // _WORD)

    def at_least(self, least: int) -> int | None:
        index, bit = divmod(least, _WORD)
        here = self._words[index] >> bit
        if here:
            return least + _lowest_bit(here)
        later = self._summary >> index + 1
        if not later:
            return None
        index += 1 + _lowest_bit(later)
        return index * _WORD + _lowest_bit(self._words[index])


def _lowest_bit(number: int) -> int:
    return (number & -number).bit_length() - 1

"""The rows of an optimizer step divided into micro-batches of up to so many tokens: a function of their lengths and order alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Budget:
    """Most tokens of a micro-batch. Where rows are padded, each of them counts as long as the longest."""

    tokens: int
    is_padded: bool = False

    @classmethod
    def of(cls, tokens: int | None, *, flat: bool) -> Budget | None:
        """The budget of `micro_batch_tokens`, for rows end to end or padded ones; None where the option is absent."""
        return None if tokens is None else cls(tokens, is_padded=not flat)

    def counted(self, lengths: Iterable[int]) -> int:
        """Tokens of a micro-batch of such rows."""
        rows = list(lengths)
        return max(rows) * len(rows) if self.is_padded else sum(rows)

    def sizes(self, lengths: Iterable[int]) -> list[int]:
        """Rows of each micro-batch that rows of `lengths` make in their order. One that is longer by itself is a micro-batch of its own."""
        found, total, longest = list[int](), 0, 0
        for length in lengths:
            total, longest = total + length, max(longest, length)
            counted = longest * (found[-1] + 1) if self.is_padded and found else total
            if found and counted <= self.tokens:
                found[-1] += 1
            else:
                found.append(1)
                total = longest = length
        return found

    def fullest(self, lengths: Iterable[int]) -> list[int]:
        """Of rows that may come in any order the micro-batch with the most tokens; end to end nearly: the longest row, then each that still
        fits."""
        longest = sorted(lengths, reverse=True)
        if self.is_padded:
            return max((longest[place : place + max(1, self.tokens // length)] for place, length in enumerate(longest)), key=self.counted)
        found = longest[:1]
        for length in longest[1:]:
            if sum(found) + length <= self.tokens:
                found.append(length)
        return found


def divided(lengths: NDArray[np.int64], budget: Budget, per_device: int, world_size: int) -> list[list[NDArray[np.int64]]]:
    """Of each rank, of each of its micro-batches, the places of its rows among those of one optimizer step, whose `lengths` [n] these are.

    A rank has the rows that it has without a budget: `per_device` of every `per_device * world_size`. All have as many micro-batches;
    the last ones of some are empty.
    """
    owners = np.arange(len(lengths)) // per_device % world_size
    found = [_of_rank(np.flatnonzero(owners == rank), lengths, budget) for rank in range(world_size)]
    most = max(map(len, found))
    return [[*parts, *[np.arange(0)] * (most - len(parts))] for parts in found]


def _of_rank(places: NDArray[np.int64], lengths: NDArray[np.int64], budget: Budget) -> list[NDArray[np.int64]]:
    sizes = budget.sizes(lengths[places].tolist())
    return [places[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]

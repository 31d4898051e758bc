"""Weighted blends: which set the next sequence is drawn from. Pure.

Axes: K sets, n draws.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Draws(NamedTuple):
    """The sequence of draw i is number rows[i] of set sets[i]: sets [n] int16, rows [n] int64."""

    sets: NDArray[np.int16]
    rows: NDArray[np.int64]


def interleave(weights: Sequence[float], sizes: Sequence[int]) -> Draws:
    """Draw from K sets until every sequence of every set was drawn at least once; the shares follow the weights at every moment.

    Draw s goes to the set whose count lags most behind `weight * max(s, 1)`, the first of equals: Megatron's rule
    (build_blending_indices of megatron/core/datasets). Within a set sequences come in order and begin again when all were
    drawn. Weights in proportion to the sizes draw each sequence just once. Weights need not add up to 1.
    """
    whole = float(sum(weights))
    shares = [weight / whole for weight in weights]
    counts = [0] * len(shares)
    unseen = sum(size > 0 for size in sizes)
    chosen = array("h")
    numbers = range(len(shares))
    step = 0
    while unseen:
        at = float(step or 1)
        most, lag = 0, shares[0] * at - counts[0]
        for number in numbers[1:]:
            behind = shares[number] * at - counts[number]
            if behind > lag:
                most, lag = number, behind
        chosen.append(most)
        counts[most] += 1
        unseen -= counts[most] == sizes[most]
        step += 1
    sets = np.frombuffer(chosen, np.int16) if chosen else np.empty(0, np.int16)
    rows = np.empty(len(sets), np.int64)
    for number, size in enumerate(sizes):
        mine = sets == number
        rows[mine] = np.arange(int(mine.sum())) % max(size, 1)
    return Draws(sets, rows)

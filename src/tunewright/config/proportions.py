"""Proportions of training, validation and test data as Megatron writes them: `949,50,1`. Standard library only."""

from __future__ import annotations

import math
from typing import NamedTuple

PARTS = ("training", "validation", "test")


class Shares(NamedTuple):
    """Parts of a whole, which together are 1."""

    training: float
    validation: float
    test: float


def read_proportions(text: str) -> Shares:
    """One to three numbers with commas between them, in any unit; what is not written is 0. Raises ValueError saying what is wrong."""
    words = [word.strip() for word in text.split(",")]
    if len(words) > len(PARTS):
        raise ValueError(f"{len(words)} numbers, but the parts are {', '.join(PARTS)}")
    training, validation, test = [*(_number(word) for word in words), 0.0, 0.0][: len(PARTS)]
    whole = training + validation + test
    if not whole:
        raise ValueError("all parts are 0")
    return Shares(training / whole, validation / whole, test / whole)


def borders(shares: Shares, number: int) -> tuple[int, int, int, int]:
    """0, the end of each part of `number` things laid in a row: round(number * sum of the shares so far), halves to the even number.

    Megatron's rule (megatron/core/datasets): parts are cut at rounded borders rather than counted, so that they are all things
    together, in order, whatever the rounding.
    """
    sums = (0.0, shares.training, shares.training + shares.validation, shares.training + shares.validation + shares.test)
    first, second, third, last = (round(share * number) for share in sums)
    return first, second, third, last


def _number(word: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"'{word}' is not a number from 0 on")
    return number

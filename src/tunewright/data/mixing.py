"""Which rows of a data set are used, and which are held out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tunewright.data.sampling import permutation
from tunewright.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SAMPLE, _SPLIT = 101, 102
"""Third entry of the key, which keeps the draws of this module apart from each other and from the order of an epoch."""


def sampled_rows(number: int, num_samples: int, seed: int) -> NDArray[np.int64]:
    """`num_samples` random rows of `number`; beyond `number` the rows repeat, each as often as the others or once more."""
    rounds = math.ceil(num_samples / number)
    return np.concatenate([permutation(number, (seed, 0, _SAMPLE, turn + 1)) for turn in range(rounds)])[:num_samples]


def split_rows(number: int, val_size: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on and rows held out, both in data order; they share none and are all rows together.

    `val_size` below 1 is a fraction, rounded up; from 1 on a count. Raises `InputError` if no row were left to train on.
    """
    if val_size >= 1 and val_size != int(val_size):
        raise InputError(f"val_size: {val_size:g} is neither a fraction below 1 nor a whole number of rows")
    held_out = math.ceil(number * val_size) if val_size < 1 else int(val_size)
    if held_out >= number:
        raise InputError(f"val_size: {val_size:g} holds out {held_out} of {number} rows and leaves none to train on",
                         mend="make it smaller")
    order = permutation(number, (seed, 0, _SPLIT))
    return np.sort(order[held_out:]), np.sort(order[:held_out])

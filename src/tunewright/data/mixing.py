"""Which rows of the data sets are used, in which order they are mixed, and which are held out. Pure functions of their arguments.

Mixing follows `datasets.interleave_datasets`: without probabilities the sets take turns, row by row; with them each row is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from tunewright.data.sampling import permutation
from tunewright.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNDER, OVER, ONCE = "interleave_under", "interleave_over", "interleave_once"
"""Until the first set is at its end; until each was whole at least once, shorter ones beginning anew; until each was whole once."""

_SAMPLE, _SPLIT, _MIX = 101, 102, 103
"""Third entry of the key, which keeps the draws of this module apart from each other and from the order of an epoch."""

_DRAWS: Final = 4096

MOST_DRAWS: Final = 2**27
"""Draws of a mixture that are made and kept in memory, eight bytes each."""


def sampled_rows(number: int, num_samples: int, seed: int) -> NDArray[np.int64]:
    """`num_samples` random rows of `number`; beyond `number` the rows repeat, each as often as the others or once more."""
    rounds = math.ceil(num_samples / number)
    return np.concatenate([permutation(number, (seed, 0, _SAMPLE, turn + 1)) for turn in range(rounds)])[:num_samples]


def numpy_rows(number: int, num_samples: int, seed: int, before: Sequence[tuple[int, int]] = ()) -> NDArray[np.int64]:
    """`num_samples` rows of `number` as LLaMA-Factory draws them: a permutation, and beyond `number` further rows one by one.

    Its draws come from numpy's global generator, seeded once in the run: `before` are (number, num_samples) of the sets that were drawn
    from it first. That generator is of the old kind, `RandomState`, whose stream numpy has frozen.
    """
    generator = np.random.RandomState(seed)
    for other, wanted in before:
        _old_draw(generator, other, wanted)
    return _old_draw(generator, number, num_samples)


def _old_draw(generator: np.random.RandomState, number: int, wanted: int) -> NDArray[np.int64]:
    rows = generator.permutation(number)[:wanted]
    more = wanted - len(rows)
    return np.concatenate([rows, generator.choice(number, more)]).astype(np.int64) if more > 0 else rows.astype(np.int64)


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


def set_draws(probabilities: Sequence[float], seed: int) -> Iterator[NDArray[np.int64]]:
    """Which set each row of a mixture comes from, without end, some thousands at a time; always the same for a seed."""
    generator = np.random.PCG64(np.random.SeedSequence([seed, 0, _MIX]))
    borders = np.cumsum(np.asarray(probabilities, np.float64))
    borders /= borders[-1]
    while True:
        uniform = (generator.random_raw(_DRAWS) >> np.uint64(11)) * 2.0**-53
        yield np.searchsorted(borders, uniform, side="right").astype(np.int64)


def interleaved(sizes: Sequence[int], strategy: str, probabilities: Sequence[float], seed: int) -> NDArray[np.int64]:
    """[rows, 2] the mixture of sets of `sizes` rows, none empty: number of the set, number of the row in it.

    Naive equivalent: take the next row of the set whose turn it is, or that is drawn; at its end a set begins anew (over), is passed
    over (once), or ends the mixture (under; without probabilities at the end of the round).
    """
    lengths = np.asarray(sizes, np.int64)
    sets, turns = _drawn(lengths, strategy, probabilities, seed) if probabilities else _in_turns(lengths, strategy)
    rows = turns % lengths[sets]
    kept = turns < lengths[sets] if strategy == ONCE else np.ones(len(sets), bool)
    return np.stack([sets[kept], rows[kept]], axis=1)


def _in_turns(lengths: NDArray[np.int64], strategy: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Set of each row, and how many rows of that set came before it, round by round."""
    rounds = int(lengths.min() if strategy == UNDER else lengths.max())
    return np.tile(np.arange(len(lengths)), rounds), np.repeat(np.arange(rounds), len(lengths))


def _drawn(lengths: NDArray[np.int64], strategy: str, probabilities: Sequence[float],
           seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The same by draws, up to the last row of the first set that is whole, or of the last."""
    demand_probabilities(probabilities, len(lengths))
    _demand_few_draws(lengths, strategy, probabilities)
    is_over = np.any if strategy == UNDER else np.all
    counts = np.zeros(len(lengths), np.int64)
    parts: list[NDArray[np.int64]] = []
    for part in set_draws(probabilities, seed):
        parts.append(part)
        counts += np.bincount(part, minlength=len(lengths))
        if is_over(counts >= lengths):
            break
    sets = np.concatenate(parts)
    turns = np.empty(len(sets), np.int64)
    ends = []
    for number, length in enumerate(lengths.tolist()):
        places = np.flatnonzero(sets == number)
        turns[places] = np.arange(len(places))
        ends += [int(places[length - 1])] if len(places) >= length else []
    end = (min(ends) if strategy == UNDER else max(ends)) + 1
    return sets[:end], turns[:end]


def _demand_few_draws(lengths: NDArray[np.int64], strategy: str, probabilities: Sequence[float]) -> None:
    """Refuse probabilities with which a mixture would hardly come to its end."""
    draws = lengths / np.asarray(probabilities, np.float64)
    number = int(draws.argmin() if strategy == UNDER else draws.argmax())
    if draws[number] > MOST_DRAWS:
        raise InputError(f"interleave_probs: with {probabilities[number]:g} it takes about {draws[number]:.3g} draws until the "
                         f"{lengths[number]} rows of data set {number + 1} are whole",
                         mend="give that set a larger part, or set streaming: true")


def demand_probabilities(probabilities: Sequence[float], number: int) -> None:
    """Raise `InputError` unless there is one for each of the data sets."""
    if len(probabilities) != number:
        raise InputError(f"interleave_probs: {len(probabilities)} probabilities, but {number} data sets", mend="give one for each")

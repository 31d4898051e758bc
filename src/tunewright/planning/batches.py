"""The micro-batches of a run by their shapes: the largest one, and what they are on average."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tunewright.config.run import RunConfig
from tunewright.data.micro_batches import Budget, divided
from tunewright.data.sampling import epoch_order, length_grouped_order, sortish_order
from tunewright.planning.step import BatchShape

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EPOCHS: Final = 3
"""Epochs whose batches are looked at: in each of them others meet."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What is known of the training rows. `lengths`: of each sequence of a batch, in tokens; of a sample of them unless `is_all`.

    `row`: mean tokens of a row, where several share a sequence; `trained`: share of the tokens with a label; `number`: how many
    sequences one epoch has, None where nobody knows. `source`: in words.
    """

    lengths: NDArray[np.int64]
    row: float
    trained: float
    number: int | None
    is_all: bool
    source: str


@dataclass(frozen=True, slots=True)
class Batches:
    """`largest`: the micro-batch with the most positions. `positions`, `squares`: of a micro-batch on average, as `BatchShape` counts
    them; `number`: of those of an optimizer step on one rank; `tokens`: of an optimizer step over all ranks, without padding; `steps`: of
    the run, None where nobody knows."""

    largest: BatchShape
    positions: float
    squares: float
    number: float
    tokens: float
    steps: int | None


def batches_of(run: RunConfig, rows: Rows, *, flat: bool, ranks: int) -> Batches:
    """The micro-batches of the run: those that it will have where all lengths are known, else such as its rows may make."""
    per_device, accumulation = run.batching.per_device_train_batch_size, run.batching.gradient_accumulation_steps
    budget = Budget.of(run.batching.micro_batch_tokens, flat=flat)
    groups, number = _groups(run, rows, ranks) if budget is None else _groups_of_tokens(run, rows, ranks, budget)
    filled = groups > 0
    positions = groups.sum(axis=1) if flat else groups.max(axis=1) * filled.sum(axis=1)
    largest = groups[int(np.argmax(positions))]
    shape = BatchShape(tuple(_cut(int(length), rows.row) for length in largest[largest > 0]), flat, rows.trained)
    each = min(rows.row, float(rows.lengths.mean()))
    squares = groups.sum(axis=1) * each if flat else groups.max(axis=1) ** 2 * filled.sum(axis=1)
    tokens = float(groups.sum(axis=1).mean()) * number * ranks
    steps = _steps(run, rows.number, per_device * ranks * accumulation)
    return Batches(shape, float(positions.mean()), float(squares.mean()), number, tokens, steps)


def _groups(run: RunConfig, rows: Rows, ranks: int) -> tuple[NDArray[np.int64], float]:
    """Lengths by micro-batch, [batches, rows of each], 0 where one is not full; how many of them a step has on a rank."""
    lengths, per_device, number = rows.lengths, run.batching.per_device_train_batch_size, float(run.batching.gradient_accumulation_steps)
    if rows.is_all:
        return np.concatenate([_cut_up(one, per_device) for one in _epochs(run, lengths, ranks)]), number
    longest = np.sort(lengths)[::-1]
    worst = np.resize(longest, per_device)[None]  # the longest ones together: so it may come
    found = worst if len(lengths) < 2 else np.concatenate([worst, _cut_up(np.resize(lengths, 64 * per_device), per_device)])
    return found, number


def _groups_of_tokens(run: RunConfig, rows: Rows, ranks: int, budget: Budget) -> tuple[NDArray[np.int64], float]:
    """The same with micro-batches that a budget divides; what a rank runs that has fewer of them than another is one without rows."""
    per_device, accumulation = run.batching.per_device_train_batch_size, run.batching.gradient_accumulation_steps
    step = per_device * accumulation * ranks
    orders = _epochs(run, rows.lengths, ranks) if rows.is_all else [np.resize(rows.lengths, step * max(1, 64 // accumulation))]
    steps = [order[start : start + step] for order in orders for start in range(0, len(order), step)]
    groups = [one[part] for one in steps for parts in divided(one, budget, per_device, ranks) for part in parts]
    number = len(groups) / (len(steps) * ranks)
    if not rows.is_all:
        groups.append(np.array(budget.fullest(np.resize(np.sort(rows.lengths)[::-1], per_device * accumulation).tolist())))
    return _filled_up(groups), number


def _epochs(run: RunConfig, lengths: NDArray[np.int64], ranks: int) -> list[NDArray[np.int64]]:
    """Lengths of all rows in the order of the first epochs."""
    number = min(_EPOCHS, max(1, math.ceil(run.batching.num_train_epochs)))
    step = run.batching.per_device_train_batch_size * ranks * run.batching.gradient_accumulation_steps
    return [lengths[_order(run, lengths, step, epoch)] for epoch in range(number)]


def _order(run: RunConfig, lengths: NDArray[np.int64], step: int, epoch: int) -> NDArray[np.int64]:
    seed = run.run.seed if run.run.data_seed is None else run.run.data_seed
    if run.batching.disable_shuffling:
        return np.arange(len(lengths))
    if run.batching.group_by_length:
        return length_grouped_order(lengths, step, seed, epoch)
    if run.batching.sortish_sampler:
        return sortish_order(lengths, step, seed, epoch)
    return epoch_order(len(lengths), seed, epoch)


def _cut_up(lengths: NDArray[np.int64], per_device: int) -> NDArray[np.int64]:
    missing = -len(lengths) % per_device
    return np.concatenate([lengths, np.zeros(missing, dtype=np.int64)]).reshape(-1, per_device)


def _filled_up(groups: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Groups of any size as rows of one table, with 0 behind their ends."""
    found = np.zeros((len(groups), max(map(len, groups))), dtype=np.int64)
    for place, group in enumerate(groups):
        found[place, : len(group)] = group
    return found


def _cut(length: int, row: float) -> tuple[int, ...]:
    """A sequence as rows of the mean length."""
    count = max(1, round(length / max(1.0, row)))
    return tuple(length // count + (number < length % count) for number in range(count))


def _steps(run: RunConfig, number: int | None, per_step: int) -> int | None:
    """As `engine.cadence.total_steps` counts them."""
    if run.batching.max_steps > 0:
        return run.batching.max_steps
    if number is None:
        return None
    whole = number // per_step if run.batching.dataloader_drop_last else math.ceil(number / per_step)
    return max(1, math.ceil(run.batching.num_train_epochs * whole))


def divisors_below(number: int) -> Sequence[int]:
    """The divisors of a number that are at most half of it, largest first."""
    return [one for one in range(number // 2, 0, -1) if number % one == 0]

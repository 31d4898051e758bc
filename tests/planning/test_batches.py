"""The shapes of a run's micro-batches. Oracle: the engine's own batches, made and measured; numbers by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.test_equivalence import GOLDEN, collation, one_step, same
from tests.engine.test_equivalence import Rows as Examples
from tests.planning.shapes_of_runs import run_of
from tunewright.data.micro_batches import Budget
from tunewright.engine.assemble import timetable
from tunewright.engine.batches import Loading, Order, Share, TrainBatches
from tunewright.kernels.packed_attention import register
from tunewright.planning.batches import Rows, batches_of, divisors_below
from tunewright.planning.estimate import resized
from tunewright.planning.step import BatchShape
from tunewright.runtime import Ranks

LENGTHS = np.array([5, 17, 9, 2, 30, 11, 3, 21])


def known(lengths: np.ndarray = LENGTHS) -> Rows:
    return Rows(lengths, float(lengths.mean()), 0.5, len(lengths), True, "all")


@pytest.mark.parametrize("changes", [{}, {"group_by_length": True}, {"sortish_sampler": True}, {"disable_shuffling": True}])
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize(("per_device", "ranks"), [(2, 1), (3, 1), (2, 2)])
def test_the_largest_batch_is_the_engines_own(changes: dict[str, Any], flat: bool, per_device: int, ranks: int) -> None:
    """Over three epochs and all ranks."""
    run = run_of(Path("m"), per_device_train_batch_size=per_device, num_train_epochs=3.0, seed=3, **changes)
    largest = 0
    for rank in range(ranks):
        batches = TrainBatches(Examples(), Order(3, run.batching.group_by_length, not run.batching.disable_shuffling,
                                                 run.batching.sortish_sampler),
                               Share(per_device, 1, rank, ranks), Loading(collation(flat, 0), 0, 60))
        for epoch in range(3):
            largest = max([largest, *(batch.input_ids.numel() for window in batches.windows(epoch, 0) for batch in window.batches)])
    assert batches_of(run, known(), flat=flat, ranks=ranks).largest.positions == largest


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize(("tokens", "ranks"), [(1, 1), (40, 1), (40, 2), (64, 2), (1000, 1)])
def test_micro_batches_of_a_budget_are_the_engines_own(flat: bool, tokens: int, ranks: int) -> None:
    """The largest one, how many a step has on a rank, and tokens of a step: over three epochs of steps of 2 x 2 rows a rank."""
    run = run_of(Path("m"), per_device_train_batch_size=2, gradient_accumulation_steps=2, num_train_epochs=3.0, seed=3,
                 micro_batch_tokens=tokens)
    windows = [window for rank in range(ranks) for epoch in range(3) for window in TrainBatches(
        Examples(), Order(3, by_length=False), Share(2, 2, rank, ranks), Loading(collation(flat, 0), 0, 60),
        budget=Budget(tokens, is_padded=not flat)).windows(epoch, 0)]
    found = batches_of(run, known(), flat=flat, ranks=ranks)
    assert found.largest.positions == max(batch.input_ids.numel() for window in windows for batch in window.batches)
    assert found.largest.positions <= max(tokens, 30)
    assert found.number == pytest.approx(np.mean([len(window.batches) for window in windows]))
    assert found.tokens == pytest.approx(LENGTHS.sum() * 3 * ranks / len(windows))
    assert found.steps == len(windows) / ranks


def test_without_a_budget_a_step_has_its_accumulation() -> None:
    run = run_of(Path("m"), per_device_train_batch_size=2, gradient_accumulation_steps=3)
    assert batches_of(run, known(), flat=True, ranks=1).number == 3


@pytest.mark.parametrize(("flat", "largest"), [(True, [30, 17, 3]), (False, [11, 9, 5, 3])])
def test_of_a_sample_the_longest_rows_may_fill_the_budget(flat: bool, largest: list[int]) -> None:
    """Steps of eight rows, 50 tokens: 30, of 21 no more, then 17 and 3 (11, 9 and 5 no longer fit); padded, 4 x 11 are
    more than 30, 2 x 21, 2 x 17 and 4 x 9."""
    rows = Rows(LENGTHS, 1000.0, 0.5, 800, False, "a sample")
    run = run_of(Path("m"), per_device_train_batch_size=8, micro_batch_tokens=50)
    assert batches_of(run, rows, flat=flat, ranks=1).largest.sequences == tuple((one,) for one in largest)


def test_rows_of_a_stream_are_divided_too() -> None:
    """Rows of 16 tokens of which nothing else is known, steps of 8, 40 tokens: two at a time, four times."""
    rows = Rows(np.array([16]), 16.0, 0.5, None, False, "nothing")
    run = run_of(Path("m"), per_device_train_batch_size=4, gradient_accumulation_steps=2, micro_batch_tokens=40)
    found = batches_of(run, rows, flat=True, ranks=2)
    assert (found.largest.sequences, found.number, found.positions, found.tokens) == (((16,), (16,)), 4, 32, 256)


def test_positions_and_squares_by_hand() -> None:
    """Rows of 3, 5 and 4 tokens: 12 end to end, 15 padded; 9 + 25 + 16, and 3 x 25 pairs."""
    rows = ((3,), (5,), (4,))
    assert [(shape.tokens, shape.positions, shape.squares) for shape in (BatchShape(rows, True), BatchShape(rows, False))] == [
        (12, 12, 50), (12, 15, 75)]


@pytest.mark.parametrize(("changes", "ranks"), [
    ({}, 1), ({"max_steps": 7}, 1), ({"num_train_epochs": 1.5}, 1), ({"gradient_accumulation_steps": 3}, 2),
    ({"dataloader_drop_last": True}, 1)])
def test_steps_are_counted_as_the_engine_counts_them(changes: dict[str, Any], ranks: int) -> None:
    run = run_of(Path("m"), per_device_train_batch_size=3, **changes)
    batching = run.batching
    batches = TrainBatches(Examples(), Order(0, False), Share(3, batching.gradient_accumulation_steps, 0, ranks),
                           Loading(collation(True, 0), 0, 60), batching.dataloader_drop_last)
    assert batches_of(run, known(), flat=True, ranks=ranks).steps == timetable(run, batches.steps_per_epoch).total_steps


def test_of_a_sample_the_longest_rows_may_meet() -> None:
    rows = Rows(LENGTHS, 12.0, 0.5, 800, False, "a sample")
    assert batches_of(run_of(Path("m"), per_device_train_batch_size=3), rows, flat=True, ranks=1).largest.tokens == 30 + 21 + 17


def test_divisors() -> None:
    assert [divisors_below(number) for number in (8, 6, 7, 1)] == [[4, 2, 1], [3, 2, 1], [1], []]


@pytest.mark.parametrize("size", [4, 2, 1])
def test_a_smaller_size_computes_the_same_step(size: int) -> None:
    """Loss and every gradient of 8 rows in float64 to 1e-10. Oracle: the step as it was configured."""
    run = run_of(Path("m"), per_device_train_batch_size=8)
    smaller = resized(run, size).batching
    assert smaller.per_device_train_batch_size * smaller.gradient_accumulation_steps == 8
    register()
    first, second = (one_step(Share(one.per_device_train_batch_size, one.gradient_accumulation_steps, 0, 1), collation(True, 0),
                              "tunewright_packed", Ranks()) for one in (run.batching, smaller))
    assert first[0] == pytest.approx(second[0], rel=GOLDEN)
    assert same(first[1], second[1])

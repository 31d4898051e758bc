"""Who lends a marked answer to whose prompt, and which collator a stage gets. Oracle: the order of a step, walked through one by one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunewright.config.data import DataConfig
from tunewright.config.run import RunConfig
from tunewright.data.collate import Batch, Example
from tunewright.data.collate_feedback import WithPartners, collate_feedback_flat
from tunewright.data.collate_prompts import collate_prompts_left
from tunewright.engine.assemble import evaluation_collation, stage_collation
from tunewright.engine.batches import Loading, Order, Share, TrainBatches, every_batch
from tunewright.kernels.plan import KernelPlan
from tunewright.stages.stage import ExampleKind


class Numbered:
    """Rows of a prompt 100 + n and an answer 200 + n."""

    def __init__(self, size: int) -> None:
        self.lengths = np.full(size, 2, np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Example:
        return Example(np.array([100 + index, 200 + index], np.int32), np.array([-100, 200 + index], np.int32), np.array([0, 2], np.int32),
                       index, 1 if index % 2 else -1)


LENDING = WithPartners(partial(collate_feedback_flat, cutoff_len=8))


def lent(batch: Batch) -> list[tuple[int, int]]:
    """(sample, who lends it an answer) of each row; the rows themselves stand in front."""
    ids = batch.input_ids.reshape(-1, 2)
    size = len(batch.sample_ids)
    if not size:
        return []
    assert ids[:size, 0].tolist() == ids[size:, 0].tolist() == [100 + sample for sample in batch.sample_ids]
    assert ids[:size, 1].tolist() == [200 + sample for sample in batch.sample_ids]
    return list(zip(batch.sample_ids, (ids[size:, 1] - 200).tolist(), strict=True))


def steps(size: int, per_device: int, accumulation: int, world_size: int, offset: int = 0) -> list[dict[int, int]]:
    """Who lends to whom in each step, over all ranks."""
    found: list[dict[int, int]] = []
    for rank in range(world_size):
        batches = TrainBatches(Numbered(size), Order(7, by_length=False), Share(per_device, accumulation, rank, world_size),
                               Loading(LENDING, 0, 60))
        for number, window in enumerate(batches.windows(1, offset)):
            found += [{}] if rank == 0 else []
            found[number] |= dict(pair for batch in window.batches for pair in lent(batch))
    return found


def in_turn(size: int, per_step: int) -> list[dict[int, int]]:
    """Oracle: in each step every sample lends to the one before it, the first to the last; one alone borrows from the next of the set."""
    order = Order(7, by_length=False).of(1, np.full(size, 2, np.int64), per_step).tolist()
    found = []
    for start in range(0, size, per_step):
        step = order[start : start + per_step]
        borrowed = [step[(number + 1) % len(step)] for number in range(len(step))] if len(step) > 1 else [(step[0] + 1) % size]
        found.append(dict(zip(step, borrowed, strict=True)))
    return found


@given(st.integers(1, 40))
def test_partners_are_the_same_for_every_split_of_a_step(size: int) -> None:
    """Batch 8 = 4 x 2 = 2 ranks x 4 = 4 ranks x 2 x 1, also in the last step, where ranks have no rows."""
    wanted = in_turn(size, 8)
    assert steps(size, 8, 1, 1) == steps(size, 4, 2, 1) == steps(size, 4, 1, 2) == steps(size, 1, 2, 4) == wanted


def test_a_resumed_epoch_has_the_same_partners() -> None:
    assert steps(21, 2, 2, 2, offset=8) == in_turn(21, 8)[1:]


def test_one_row_is_its_own_partner() -> None:
    assert steps(1, 4, 1, 2) == [{0: 0}]


@pytest.mark.parametrize(("per_device", "world_size"), [(1, 1), (3, 1), (2, 2), (5, 3)])
def test_evaluation_takes_the_next_of_the_set(per_device: int, world_size: int) -> None:
    """Whatever the batch: 0 borrows from 1, ..., and the last from 0."""
    found: dict[int, int] = {}
    for rank in range(world_size):
        for batch in every_batch(Numbered(7), Share(per_device, 1, rank, world_size), Loading(LENDING, 0, 60)):
            found |= dict(lent(batch))
    assert found == {number: (number + 1) % 7 for number in range(7)}


def test_loader_processes_know_the_partners() -> None:
    batches = TrainBatches(Numbered(9), Order(7, by_length=False), Share(2, 2, 0, 1), Loading(LENDING, 2, 60))
    found = [dict(pair for batch in window.batches for pair in lent(batch)) for window in batches.windows(1, 0)]
    assert found == in_turn(9, 4)


def test_a_rank_without_rows_has_no_sequence() -> None:
    """Three rows for two ranks of two: the second has one row in the first step; of five, none in the second."""
    for size, counts in ((3, [2]), (5, [4, 0])):
        batches = TrainBatches(Numbered(size), Order(7, by_length=False), Share(2, 1, 1, 2), Loading(LENDING, 0, 60))
        found = [window.batches[0] for window in batches.windows(1, 0)]
        assert [batch.sequences.count for batch in found] == counts  # type: ignore[union-attr]
        assert [len(batch.marks) for batch in found] == [count // 2 for count in counts]  # type: ignore[arg-type]
        assert all(batch.input_ids.numel() for batch in found)


PLANS = {"shared": KernelPlan("x", True, (), shares_prefixes=True), "flat": KernelPlan("x", True, ()), "padded": KernelPlan("x", False, ())}
RUN = RunConfig(data=DataConfig(cutoff_len=8))


def pair(number: int) -> Example:
    ids = np.array([1, 2, 3, 1, 2, 4, 5], np.int32)
    return Example(ids, np.where(ids > 2, ids, -100).astype(np.int32), np.array([0, 3, 7], np.int32), number)


@pytest.mark.parametrize("choose", [stage_collation, evaluation_collation])
@pytest.mark.parametrize(("kind", "plan", "shape", "answers"), [
    ("preference", "shared", (1, 10), 4), ("preference", "flat", (1, 14), 4), ("preference", "padded", (4, 4), 4),
    ("feedback", "shared", (1, 8), 4), ("feedback", "flat", (1, 8), 4), ("feedback", "padded", (4, 2), 4),
    ("prompt", "shared", (2, 2), None), ("prompt", "flat", (2, 2), None), ("prompt", "padded", (2, 2), None),
    ("conversation", "flat", (1, 4), None), ("text", "padded", (2, 2), None)])
def test_collators_by_stage_and_kernels(choose: Any, kind: str, plan: str, shape: tuple[int, int], answers: int | None) -> None:
    """The shape of two examples, and how many answers they have: two each of pairs, one and one lent of feedback."""
    collate = choose(RUN, ExampleKind(kind), PLANS[plan], 0)
    examples: Sequence[Example] = [pair(0), pair(1)] if kind == "preference" else [Numbered(2)[0], Numbered(2)[1]]
    batch = collate(examples)
    assert tuple(batch.input_ids.shape) == shape
    assert (None if batch.sequences is None else batch.sequences.count) == answers
    assert isinstance(collate, WithPartners) == (kind == "feedback")
    assert (kind == "prompt") == (isinstance(collate, partial) and collate.func is collate_prompts_left)
    assert torch.equal(batch.input_ids[:, :2], torch.tensor([[100, 200], [101, 201]])) or kind != "prompt"

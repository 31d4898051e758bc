"""Micro-batches of up to so many tokens. Oracles: divisions by hand; a restatement that takes rows one by one from a list; for the order,
the ranks and the steps the micro-batches without a budget."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.test_partners import LENDING, in_turn, lent
from tunewright.data.collate import Example, collate_flat
from tunewright.data.micro_batches import Budget, divided
from tunewright.engine.batches import Collate, Loading, Order, Share, TrainBatches, Window

LENGTHS = [4, 3, 5, 9, 1, 2, 2, 8, 6, 1, 1]
IN_ORDER = Order(0, by_length=False, shuffled=False)
SHARES = [(2, 2, 1), (3, 1, 1), (4, 1, 2), (1, 3, 2), (2, 2, 3)]
"""Rows of a device, accumulation, ranks."""


class Lengths:
    """Rows of these lengths."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = np.array(lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Example:
        ids = np.full(self.lengths[index], index + 1, np.int32)
        return Example(ids, ids, np.array([0, len(ids)], np.int32), index)


def windows(share: Share, budget: Budget | None, lengths: list[int] = LENGTHS, order: Order = IN_ORDER, **settings: Any) -> list[Window]:
    collate: Collate = settings.pop("collate", collate_flat)
    offset = settings.pop("offset", 0)
    batches = TrainBatches(Lengths(lengths), order, share, Loading(collate, 0, 60), budget=budget, **settings)
    return list(batches.windows(0, offset))


def samples(found: list[Window]) -> list[list[list[int]]]:
    """Of each step, of each micro-batch."""
    return [[list(batch.sample_ids) for batch in window.batches] for window in found]


def joined(found: list[Window]) -> list[list[int]]:
    """Of each step."""
    return [[one for batch in window.batches for one in batch.sample_ids] for window in found]


@pytest.mark.parametrize(("lengths", "tokens", "flat", "padded"), [
    ([4, 3, 5], 12, [3], [2, 1]),               # 4 + 3 + 5 = 12; 2 x 4 = 8, but 3 x 5 = 15
    ([4, 3, 5], 11, [2, 1], [2, 1]),
    ([9, 1, 1, 9], 8, [1, 2, 1], [1, 2, 1]),    # nine tokens are more than eight by themselves
    ([1, 1, 1, 4], 7, [4], [3, 1]),             # 4 x 4 = 16
    ([2, 2, 2], 2, [1, 1, 1], [1, 1, 1]), ([7], 1, [1], [1]), ([], 5, [], [])])
def test_sizes_by_hand(lengths: list[int], tokens: int, flat: list[int], padded: list[int]) -> None:
    """As the comments reckon."""
    assert Budget(tokens).sizes(lengths) == flat
    assert Budget(tokens, is_padded=True).sizes(lengths) == padded


def test_the_fullest_by_hand() -> None:
    """Of rows of 6, 5, 3 and 2: 6 + 3 of 10 tokens, because 6 + 5 are 11 and 6 + 3 + 2 too; padded, 5 twice rather than 6 once."""
    assert Budget(10).fullest([2, 5, 6, 3]) == [6, 3]
    assert Budget(10, is_padded=True).fullest([2, 5, 6, 3]) == [5, 3]
    assert Budget(4).fullest([2, 5, 6, 3]) == [6]


def test_steps_of_one_rank_by_hand() -> None:
    """Steps of 2 x 2 rows, at most 8 tokens together: 4 + 3, 5, 9; 1 + 2 + 2, 8; 6 + 1 + 1."""
    found = windows(Share(2, 2, 0, 1), Budget(8))
    assert samples(found) == [[[0, 1], [2], [3]], [[4, 5, 6], [7]], [[8, 9, 10]]]
    assert [(window.consumed, window.ends_epoch) for window in found] == [(4, False), (4, False), (3, True)]


def test_two_ranks_run_as_many_micro_batches() -> None:
    """Steps of 2 x 2 rows on each of two ranks: rank 0 has samples 0, 1, 4, 5 of the first step (4 + 3 + 1, 2 of 8 tokens) and 8, 9 of the
    second, rank 1 has 2, 3, 6, 7 (5, 9, 2, 8) and 10. Rank 0 makes up for the two that it lacks with the shortest row of the step, of one
    token, without a label."""
    first, second = (windows(Share(2, 2, rank, 2), Budget(8)) for rank in range(2))
    assert samples(first) == [[[0, 1, 4], [5], [], []], [[8, 9]]]
    assert samples(second) == [[[2], [3], [6], [7]], [[10]]]
    added = first[0].batches[2:]
    assert [batch.input_ids.tolist() for batch in added] == [[[5]]] * 2
    assert all((batch.targets == -100).all() for batch in added)


def test_a_rank_without_rows_runs_one_as_well() -> None:
    """Three rows in steps of 2 x 1 on three ranks: 4 + 3 of 20 tokens, 5, and none."""
    found = [windows(Share(2, 1, rank, 3), Budget(20), LENGTHS[:3]) for rank in range(3)]
    assert [samples(one) for one in found] == [[[[0, 1]]], [[[2]]], [[[]]]]


@st.composite
def sets(draw: st.DrawFn) -> tuple[list[int], Budget, tuple[int, int, int]]:
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=40))
    return lengths, Budget(draw(st.integers(1, 120)), draw(st.booleans())), draw(st.sampled_from(SHARES))


@given(sets())
def test_each_step_and_rank_has_the_samples_it_has_without(case: tuple[list[int], Budget, tuple[int, int, int]]) -> None:
    """Whatever lengths, budget and ranks: the same samples of each rank in each step, in the same order, and as many micro-batches on all
    ranks; none above the budget but for one row, and none that the next row had still fitted into."""
    lengths, budget, (per_device, accumulation, ranks) = case
    order = Order(3, by_length=False)
    counts = []
    for rank in range(ranks):
        share = Share(per_device, accumulation, rank, ranks)
        found, plain = (windows(share, one, lengths, order) for one in (budget, None))
        assert joined(found) == joined(plain)
        assert [(one.consumed, one.ends_epoch) for one in found] == [(one.consumed, one.ends_epoch) for one in plain]
        for window in samples(found):
            assert all(len(one) == 1 or tokens(one, lengths, budget) <= budget.tokens for one in window if one)
            assert all(tokens([*one, following[0]], lengths, budget) > budget.tokens
                       for one, following in pairwise(window) if following)
        counts.append([len(window.batches) for window in found])
    assert all(one == counts[0] for one in counts)


def tokens(rows: list[int], lengths: list[int], budget: Budget) -> int:
    """Restated: all tokens, or those of the longest row for each."""
    counted = [lengths[row] for row in rows]
    return len(counted) * max(counted) if budget.is_padded else sum(counted)


@pytest.mark.parametrize(("per_device", "accumulation", "ranks"), SHARES)
@pytest.mark.parametrize("order", [Order(5, by_length=False), Order(5, by_length=True), IN_ORDER])
def test_an_epoch_that_is_entered_later_goes_on_alike(per_device: int, accumulation: int, ranks: int, order: Order) -> None:
    """From the offset after each step on: the windows that are left of the whole epoch."""
    share = Share(per_device, accumulation, ranks - 1, ranks)
    whole, offset = windows(share, Budget(9), LENGTHS * 4, order), 0
    for number, window in enumerate(whole):
        assert samples(windows(share, Budget(9), LENGTHS * 4, order, offset=offset)) == samples(whole[number:])
        offset += window.consumed
    assert offset == 44


def test_rows_that_do_not_fill_a_step_are_left_out() -> None:
    """Eleven rows in steps of four: two steps, as without a budget."""
    assert samples(windows(Share(2, 2, 0, 1), Budget(8), drop_last=True)) == [[[0, 1], [2], [3]], [[4, 5, 6], [7]]]


def test_partners_stay_what_they_are() -> None:
    """Rows of 2 tokens in steps of 8, of up to 6 tokens: micro-batches of three rows, and the partners of the step without them."""
    from tests.data.test_partners import Numbered

    batches = TrainBatches(Numbered(19), Order(7, by_length=False), Share(4, 2, 0, 1), Loading(LENDING, 0, 60), budget=Budget(6))
    found = list(batches.windows(1, 0))
    assert [[len(batch.sample_ids) for batch in window.batches] for window in found] == [[3, 3, 2], [3, 3, 2], [3]]
    assert [dict(pair for batch in window.batches for pair in lent(batch)) for window in found] == in_turn(19, 8)


def test_loader_processes_divide_alike() -> None:
    batches = TrainBatches(Lengths(LENGTHS), IN_ORDER, Share(2, 2, 0, 1), Loading(collate_flat, 2, 60), budget=Budget(8))
    assert samples(list(batches.windows(0, 0))) == samples(windows(Share(2, 2, 0, 1), Budget(8)))


def test_places_of_ranks_by_hand() -> None:
    """Six rows of 1 token, 2 of each device by turns on two ranks: 0, 1, 4, 5 and 2, 3; two at a time."""
    found = divided(np.ones(6, np.int64), Budget(2), 2, 2)
    assert [[part.tolist() for part in parts] for parts in found] == [[[0, 1], [4, 5]], [[2, 3], []]]

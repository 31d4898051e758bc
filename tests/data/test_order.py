"""Orders, splits and packing: permutations, partitions, bounds against naive restatements."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewright.data import packing
from tunewright.data.mixing import sampled_rows, split_rows
from tunewright.data.packing import pack
from tunewright.data.sampling import MEGABATCH, epoch_order, length_grouped_order, rank_slice
from tunewright.errors import InputError

SEEDS = st.integers(0, 2**32 - 1)


@given(st.integers(0, 300), SEEDS, st.integers(0, 50))
def test_epoch_order_is_a_permutation_and_a_pure_function(number: int, seed: int, epoch: int) -> None:
    order = epoch_order(number, seed, epoch)
    assert sorted(order.tolist()) == list(range(number))
    assert order.tolist() == epoch_order(number, seed, epoch).tolist()


def test_epoch_order_values() -> None:
    """Oracle: numpy's own PCG64 stream, sorted by Python; and the stored values guard against a change of numpy."""
    draws = np.random.PCG64(np.random.SeedSequence([7, 3])).random_raw(8).tolist()
    assert epoch_order(8, 7, 3).tolist() == sorted(range(8), key=lambda sample: draws[sample])
    assert epoch_order(8, 7, 3).tolist() == STORED
    assert epoch_order(8, 7, 4).tolist() != STORED
    assert epoch_order(8, 8, 3).tolist() != STORED


STORED = [2, 4, 7, 3, 5, 1, 0, 6]


def test_epoch_order_is_uniform() -> None:
    """Each sample is first equally often: 6,000 epochs of 6, within five standard deviations of the binomial count."""
    first = np.bincount([epoch_order(6, 1, epoch)[0] for epoch in range(6000)], minlength=6)
    assert np.abs(first - 1000).max() < 5 * math.sqrt(6000 * 1 / 6 * 5 / 6)


@given(st.lists(st.integers(1, 50), max_size=400), st.integers(1, 7), SEEDS, st.integers(0, 5))
def test_length_grouped_order(lengths: list[int], batch_size: int, seed: int, epoch: int) -> None:
    sizes = np.array(lengths, np.int64)
    order = length_grouped_order(sizes, batch_size, seed, epoch)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert order.tolist() == length_grouped_order(sizes, batch_size, seed, epoch).tolist()
    batches = [sizes[order[at : at + batch_size]] for at in range(0, len(order), batch_size)]
    for batch in batches:
        assert batch.tolist() == sorted(batch.tolist(), reverse=True)
    if lengths:
        assert batches[0][0] == max(lengths)


def test_length_grouping_saves_padding() -> None:
    """Oracle: padding counted batch by batch, in random order and grouped."""
    lengths = np.random.default_rng(0).integers(1, 1000, 8 * MEGABATCH * 2)

    def padding(order: np.ndarray) -> int:
        batches = lengths[order].reshape(-1, 8)
        return int((batches.max(axis=1, keepdims=True) - batches).sum())

    grouped = length_grouped_order(lengths, 8, 1, 0)
    assert padding(grouped) < padding(epoch_order(len(lengths), 1, 0)) / 20
    assert grouped.tolist() != length_grouped_order(lengths, 8, 1, 1).tolist()


@given(st.integers(0, 60), st.integers(1, 4), st.integers(1, 4), SEEDS)
def test_rank_slices_are_all_samples_once(number: int, per_device: int, world_size: int, seed: int) -> None:
    order = epoch_order(number, seed, 0)
    steps = range(0, number, per_device * world_size)
    slices = [rank_slice(order, offset, per_device, world_size, rank) for offset in steps for rank in range(world_size)]
    assert [sample for part in slices for sample in part.tolist()] == order.tolist()
    assert all(len(part) <= per_device for part in slices)


def test_rank_slice_by_hand() -> None:
    order = np.array([4, 2, 0, 3, 1])
    assert [rank_slice(order, 4, 2, 2, rank).tolist() for rank in range(2)] == [[1], []]
    assert [rank_slice(order, 0, 2, 2, rank).tolist() for rank in range(2)] == [[4, 2], [0, 3]]


def naive_best_fit(lengths: list[int], capacity: int) -> int:
    """Number of bins of best-fit decreasing, every bin looked at for every row."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms[rooms.index(min(fitting))] -= length
        else:
            rooms.append(capacity - length)
    return len(rooms)


@given(st.data())
def test_packing(data: st.DataObject) -> None:
    capacity = data.draw(st.sampled_from([1, 7, 64, 1023, 1024, 1025, 5000]))
    lengths = data.draw(st.lists(st.integers(1, capacity), max_size=120))
    bins = pack(lengths, capacity)
    assert sorted(row for rows in bins for row in rows) == list(range(len(lengths)))
    assert all(0 < sum(lengths[row] for row in rows) <= capacity for rows in bins)
    assert all(rows == sorted(rows) for rows in bins)
    assert bins == sorted(bins)
    assert len(bins) == naive_best_fit(lengths, capacity)
    assert bins == pack(np.array(lengths), capacity)


@settings(max_examples=50)
@given(st.lists(st.integers(1, 10), min_size=1, max_size=7))
def test_packing_is_within_the_bound_of_the_optimum(lengths: list[int]) -> None:
    """Oracle: the optimum by trying every assignment."""

    def best(rest: list[int], rooms: tuple[int, ...]) -> int:
        if not rest:
            return len(rooms)
        head, tail = rest[0], rest[1:]
        options = [best(tail, (*rooms[:at], room - head, *rooms[at + 1 :])) for at,
                   room in enumerate(rooms) if room >= head]
        return min([*options, best(tail, (*rooms, 10 - head))])

    assert len(pack(lengths, 10)) <= 11 / 9 * best(lengths, ()) + 1


def test_packing_by_hand() -> None:
    """Capacity 10. 7 opens A, 6 opens B, 4 fits B exactly, 3 fits A exactly, 2 opens C."""
    assert pack([4, 7, 3, 6, 2], 10) == [[0, 3], [1, 2], [4]]
    assert pack([], 10) == []
    for wrong in ([0], [11]):
        with pytest.raises(ValueError, match=f"lengths must be 1 to 10, found {wrong[0]} to {wrong[0]}"):
            pack(wrong, 10)


def test_packing_asks_for_a_bin_once_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many bins are open: a search, at most one removal and one addition for each of 20,000 rows. Sequences are full to 1 %."""
    calls = dict.fromkeys(("at_least", "add", "discard"), 0)

    def counting(name: str) -> Any:
        real = getattr(packing._Integers, name)

        def counted(self: Any, member: int) -> Any:
            calls[name] += 1
            return real(self, member)

        return counted

    for name in calls:
        monkeypatch.setattr(packing._Integers, name, counting(name))
    lengths = np.random.default_rng(0).lognormal(5.5, 1, 20_000).clip(1, 8192).astype(np.int64)
    for capacity in (8192, 2**20):
        calls.update(dict.fromkeys(calls, 0))
        assert len(pack(lengths, capacity)) <= math.ceil(lengths.sum() / capacity) * 1.01 + 1
        assert calls["at_least"] == 20_000 and calls["add"] <= 20_000 and calls["discard"] <= 20_000


@given(st.integers(1, 60), st.integers(1, 200), SEEDS)
def test_sampled_rows(number: int, num_samples: int, seed: int) -> None:
    """Every row as often as the others or once more; the same for the same seed."""
    rows = sampled_rows(number, num_samples, seed)
    counts = np.bincount(rows, minlength=number)
    assert len(rows) == num_samples
    assert counts.max() - counts.min() <= 1
    assert rows.tolist() == sampled_rows(number, num_samples, seed).tolist()


@given(st.integers(2, 300), st.floats(0.001, 0.49), SEEDS)
def test_split_by_fraction(number: int, val_size: float, seed: int) -> None:
    train, held_out = split_rows(number, val_size, seed)
    assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(number))
    assert len(held_out) == math.ceil(number * val_size)
    assert (np.diff(train) > 0).all()
    assert (np.diff(held_out) > 0).all()


def test_split_by_count_and_refusals() -> None:
    assert [len(part) for part in split_rows(10, 1, 0)] == [9, 1]
    assert split_rows(10, 3, 0)[1].tolist() != split_rows(10, 3, 1)[1].tolist()
    for val_size, message in (
        (10, "val_size: 10 holds out 10 of 10 rows and leaves none to train on; make it smaller"),
        (0.95, "val_size: 0.95 holds out 10 of 10 rows and leaves none to train on; make it smaller"),
        (2.5, "val_size: 2.5 is neither a fraction below 1 nor a whole number of rows"),
    ):
        with pytest.raises(InputError) as caught:
            split_rows(10, val_size, 0)
        assert caught.value.line() == message

"""The order of a stream against a restatement with plain lists; every row of a pass once; any place entered at once."""

from __future__ import annotations

import json
import tempfile
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewright.data.files import DataFile
from tunewright.data.mixing import ONCE, OVER, UNDER, interleaved
from tunewright.data.streaming.order import RawSet, StreamOrder

SETS = st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=3), min_size=1, max_size=3)
"""Of each set, the numbers of rows of its files."""
STRATEGIES = st.sampled_from(["concat", UNDER, OVER, ONCE])
Place = tuple[int, int]


def made(folder: Path, sets: list[list[int]], **changes: Any) -> StreamOrder:
    """JSONL files with those numbers of rows; a row is its file and its number there."""
    raw_sets, number = [], 0
    for one in sets:
        files = []
        for rows in one:
            path = folder / f"{number + len(files)}.jsonl"
            path.write_text("".join(f"[{number + len(files)}, {row}]\n" for row in range(rows)))
            files.append(DataFile(path, "jsonl"))
        raw_sets.append(RawSet(tuple(files), number, changes.get("max_samples")))
        number += len(files)
    chosen = {"strategy": "concat", "probabilities": (), "buffer_size": 4, "seed": 7, "shuffled": True, **changes}
    chosen.pop("max_samples", None)
    return StreamOrder(tuple(raw_sets), same_file=tuple(range(number)), **chosen)


def places(order: StreamOrder, epoch: int, offset: int = 0) -> list[Place]:
    """File and row of every slot, which the content confirms."""
    found = list(order.slots(epoch, offset))
    assert [json.loads(row.content) for row in found] == [[row.file, row.row] for row in found]
    return [(row.file, row.row) for row in found]


def by_draws(number: int, *key: int) -> list[int]:
    """A permutation: numbers sorted by PCG64's raw output."""
    draws = np.random.PCG64(np.random.SeedSequence(list(key))).random_raw(number).tolist()
    return sorted(range(number), key=lambda one: draws[one])


def naive(sets: list[list[int]], order: StreamOrder, epoch: int) -> list[Place]:
    """The whole pass in lists: files of each set in random order, sets mixed, held-out rows out, blocks shuffled."""
    columns, first = [], 0
    for number, files in enumerate(sets):
        chosen = by_draws(len(files), order.seed, epoch, 105, number) if order.shuffled else range(len(files))
        columns.append([(first + file, row) for file in chosen for row in range(files[file])])
        first += len(files)
    if order.strategy == "concat" or len(sets) == 1:
        mixed = [row for column in columns for row in column]
    else:
        table = interleaved([len(column) for column in columns], order.strategy, order.probabilities, order.seed).tolist()
        mixed = [columns[number][row] for number, row in table]
    kept = [row for row in mixed if row not in order.held_out]
    if not order.shuffled:
        return kept
    blocks = [kept[at : at + order.buffer_size] for at in range(0, len(kept), order.buffer_size)]
    return [block[place] for number, block in enumerate(blocks) for place in by_draws(len(block), order.seed, epoch, 104, number)]


CHANGES = st.fixed_dictionaries({
    "strategy": STRATEGIES, "shuffled": st.booleans(), "buffer_size": st.integers(1, 8), "seed": st.integers(0, 2**40)})


@given(SETS, CHANGES, st.booleans(), st.integers(0, 3), st.data())
@settings(deadline=None, max_examples=150)
def test_a_pass_is_its_restatement(sets: list[list[int]], changes: dict[str, Any], drawn: bool, epoch: int, data: st.DataObject) -> None:
    """Also entered at any slot; and cut into portions of any size."""
    strategy = changes["strategy"]
    probabilities = tuple(1 / len(sets) for _ in sets) if drawn and strategy != "concat" else ()
    rows = [(file, row) for file, count in enumerate(count for one in sets for count in one) for row in range(count)]
    held_out = frozenset(data.draw(st.sets(st.sampled_from(rows), max_size=len(rows) - 1)))
    with tempfile.TemporaryDirectory() as folder:
        order = made(Path(folder), sets, **changes, probabilities=probabilities, held_out=held_out)
        whole = places(order, epoch)
        assert whole == naive(sets, order, epoch)
        assert not held_out & set(whole)
        if strategy in ("concat", ONCE):
            assert sorted(whole) == sorted(set(rows) - held_out)
        if strategy == OVER:
            assert set(whole) == set(rows) - held_out
        offset = data.draw(st.integers(0, len(whole)))
        assert places(order, epoch, offset) == whole[offset:]
        size = data.draw(st.integers(1, 5))
        portions = [[(row.file, row.row) for row in rows] for rows in order.portions(epoch, offset, size)]
        assert portions == [whole[at : at + size] for at in range(offset, len(whole), size)]


def test_epochs_and_seeds_differ(tmp_path: Path) -> None:
    """And the same one is the same again."""
    order = made(tmp_path, [[9, 8], [7]], buffer_size=6)
    first = places(order, 0)
    assert first == places(order, 0)
    assert len({tuple(one) for one in (first, places(order, 1), places(made(tmp_path, [[9, 8], [7]], buffer_size=6, seed=8), 0))}) == 3


def test_files_of_a_set_take_turns_over_epochs(tmp_path: Path) -> None:
    """Each of three files is first in some epoch; with max_samples the first rows stay those of the first file."""
    order = made(tmp_path, [[2, 2, 2]], buffer_size=1)
    assert {places(order, epoch)[0][0] for epoch in range(12)} == {0, 1, 2}
    few = made(tmp_path, [[2, 2, 2]], buffer_size=1, max_samples=3)
    assert [places(few, epoch) for epoch in range(3)] == [[(0, 0), (0, 1), (1, 0)]] * 3


def test_turns_are_counted(tmp_path: Path) -> None:
    """A row that comes a second time in an epoch says so: 2 rows against 5, in turns, repeat twice and half."""
    order = made(tmp_path, [[2], [5]], strategy=OVER, shuffled=False)
    assert [row.turn for row in order.slots(0, 0) if row.file == 0] == [0, 0, 1, 1, 2]
    assert {row.turn for row in order.slots(0, 0) if row.file == 1} == {0}


def test_a_stream_is_mixed_as_a_whole_set(tmp_path: Path) -> None:
    """Oracle: the mixture that sees all rows at once, without shuffling."""
    for strategy, probabilities in ((UNDER, ()), (OVER, (0.2, 0.8)), (ONCE, (0.5, 0.5)), (UNDER, (0.9, 0.1))):
        order = made(tmp_path, [[7], [4]], strategy=strategy, probabilities=probabilities, shuffled=False)
        assert [list(place) for place in places(order, 0)] == interleaved([7, 4], strategy, probabilities, 7).tolist()


def test_blocks_bound_the_rows_in_memory(tmp_path: Path) -> None:
    """No block is larger than the buffer, and rows move only within theirs."""
    order = made(tmp_path, [[50]], buffer_size=8)
    blocks = [[row.row for row in block] for block in order.blocks(0, 0)]
    assert [sorted(block) for block in blocks] == [list(range(at, min(at + 8, 50))) for at in range(0, 50, 8)]
    assert sum(block == sorted(block) for block in blocks) < 2


def test_passing_over_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slots before a position are neither parsed nor decoded."""
    from tunewright.data.streaming import raw

    monkeypatch.setattr(raw, "parsed", None)
    monkeypatch.setattr(raw, "decoded_line", None)
    order = made(tmp_path, [[100]], buffer_size=10)
    assert len(places(order, 0, 95)) == 5
    assert list(zip(places(order, 0), cycle([0]), strict=False))[-1] == (places(order, 0, 99)[0], 0)

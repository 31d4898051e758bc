"""Batches of a stream: the same samples for any number of workers and ranks, entered at any position, packed or not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunewright.config.run import RunConfig
from tunewright.config.table import build
from tunewright.data.collate import Batch, collate_flat, collate_padded
from tunewright.data.encoding import Encoder
from tunewright.data.packing import pack
from tunewright.data.records import Conversation, Record
from tunewright.data.sources import Settled, locate, settle
from tunewright.data.streaming.prepare import Opened, Tokens, open_stream
from tunewright.data.streaming.stream import Stream, sample_id
from tunewright.engine.batches import Loading, Share, Window
from tunewright.engine.streams import StreamBatches
from tunewright.errors import InputError

CAPACITY = 12


def encode(records: Sequence[Record]) -> list[tuple[list[int], list[int]]]:
    """As many tokens as the question has letters, all of them the row's number; trained if it has an answer."""
    found = []
    for record in records:
        assert isinstance(record, Conversation)
        question, answer = (message.content for message in record.messages[-2:])
        ids = [int(answer)] * len(question)
        found.append((ids, ids))
    return found


def write(path: Path, count: int, first: int = 0) -> Path:
    """Rows of 2 to 11 tokens; every seventh has no answer and is dropped, and three in a row have one token, none of them trained."""
    with path.open("w") as file:
        for number in range(first, first + count):
            length = 1 if number % 40 in (20, 21, 22) else 2 + number * 7 % 10
            answer = "" if number % 7 == 3 else str(number)
            file.write(json.dumps({"instruction": "x" * length, "output": answer}) + "\n")
    return path


def usable(number: int) -> bool:
    """Whether something of the row is trained."""
    return number % 7 != 3 and number % 40 not in (20, 21, 22)


def opened(paths: list[Path], *, packed: bool = False, **changes: Any) -> Opened:
    run: RunConfig = build({"dataset": tuple(map(str, paths)), "streaming": True, "buffer_size": 8, "seed": 5, **changes})
    sets: list[Settled] = [settle(locate(str(path), "data"), "sft") for path in paths]
    encoder = Encoder(encode, CAPACITY, "drop", False)
    return open_stream(run, sets, Tokens(encoder, "test", None), CAPACITY if packed else None, lambda line: None)


def padded(examples: Any) -> Batch:
    return collate_padded(examples, 0)


def batches(stream: Stream, *, rank: int = 0, ranks: int = 1, workers: int = 0, accumulation: int = 1, **changes: Any) -> StreamBatches:
    collate = padded if stream.capacity is None else collate_flat
    share = Share(changes.pop("per_device", 2), accumulation, rank, ranks)
    return StreamBatches(stream, share, Loading(collate, workers, 60), **changes)


def shown(window: Window) -> list[Any]:
    """Everything of a window, comparable."""
    return [[(batch.sample_ids, batch.input_ids.tolist(), batch.targets.tolist()) for batch in window.batches], window.consumed,
            window.ends_epoch, window.streamed]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("rank", [0, 1])
def test_workers_change_nothing(tmp_path: Path, packed: bool, workers: int, rank: int) -> None:
    """Oracle: this process alone, for each of two ranks, from the beginning and from the middle of the second epoch."""
    stream = opened([write(tmp_path / "a.jsonl", 41), write(tmp_path / "b.jsonl", 9, 100)], packed=packed,
                    mix_strategy="interleave_over", interleave_probs=(0.6, 0.4)).stream
    for epoch, offset in ((0, 0), (1, 16)):
        alone = [shown(one) for one in batches(stream, rank=rank, ranks=2).windows(epoch, offset)]
        helped = [shown(one) for one in batches(stream, rank=rank, ranks=2, workers=workers).windows(epoch, offset)]
        assert helped == alone and len(alone) > 3


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_any_position_can_be_entered(tmp_path: Path, packed: bool, ranks: int, accumulation: int) -> None:
    """From the position after each window come the windows that follow it, and nothing else."""
    stream = opened([write(tmp_path / "a.jsonl", 45)], packed=packed).stream
    made = batches(stream, ranks=ranks, accumulation=accumulation)
    whole = list(made.windows(1, 0))
    assert [window.ends_epoch for window in whole] == [False] * (len(whole) - 1) + [True] and len(whole) > 2
    for number, window in enumerate(whole[:-1]):
        assert window.streamed is not None
        rest = list(made.windows(1, window.streamed.offset, window.streamed.within))
        assert [shown(one) for one in rest] == [shown(one) for one in whole[number + 1 :]]


def test_slots_are_laid_out_by_rank(tmp_path: Path) -> None:
    """Naive restatement: slot s belongs to micro-batch s // 6 and to rank s % 6 // 3, whatever became of its row."""
    stream = opened([write(tmp_path / "a.jsonl", 50)]).stream
    slots = list(stream.order.slots(0, 0))
    trained = {raw.row for raw in slots if usable(raw.row)}
    expected = [[[raw.row for raw in slots[at + 3 * rank : at + 3 * rank + 3] if raw.row in trained] for rank in (0, 1)]
                for at in range(0, 50, 6)]
    windows = [list(batches(stream, rank=rank, ranks=2, per_device=3).windows(0, 0)) for rank in (0, 1)]
    found = [[[int(row[0]) for row in one.batches[0].input_ids] if one.batches[0].sample_ids else [] for one in pair]
             for pair in zip(*windows, strict=True)]
    assert found == expected
    assert [pair[0].streamed.slots for pair in zip(*windows, strict=True) if pair[0].streamed] == [6] * 8 + [2]
    empty = [one.batches[0] for pair in zip(*windows, strict=True) for one in pair if not one.batches[0].sample_ids]
    assert empty and all((batch.targets == -100).all() and batch.input_ids.tolist() == [[0, 0]] for batch in empty)


def test_packed_sequences_are_those_of_the_slots(tmp_path: Path) -> None:
    """Naive restatement: the rows of every 8 slots packed by themselves, their sequences dealt out in order."""
    stream = opened([write(tmp_path / "a.jsonl", 50)], packed=True).stream
    slots = list(stream.order.slots(0, 0))
    sequences: list[list[int]] = []
    for at in range(0, 50, 8):
        rows = [raw.row for raw in slots[at : at + 8] if usable(raw.row)]
        sequences += [[rows[one] for one in found] for found in pack([2 + row * 7 % 10 for row in rows], CAPACITY)]
    windows = [list(batches(stream, rank=rank, ranks=2).windows(0, 0)) for rank in (0, 1)]
    dealt = [one.batches[0] for pair in zip(*windows, strict=True) for one in pair]
    assert [sample for batch in dealt for sample in batch.sample_ids] == [one[0] for one in sequences]
    tokens = [[row for row in sequence for _ in range(2 + row * 7 % 10)] for sequence in sequences]
    assert [row for batch in dealt if batch.sample_ids for row in batch.input_ids[0].tolist()] == [one for row in tokens for one in row]
    for batch in dealt:
        assert batch.bounds is not None and (np.diff(batch.bounds.numpy()) <= CAPACITY).all()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_each_row_is_told_of_once(tmp_path: Path, packed: bool, ranks: int) -> None:
    """By one rank in each epoch, in the first turn of its set; but counted as dropped each time."""
    paths = [write(tmp_path / "a.jsonl", 30), write(tmp_path / "b.jsonl", 7, 100)]
    stream = opened(paths, packed=packed, mix_strategy="interleave_over").stream
    dropped = [row for row in range(30) if not usable(row)]
    of_second = [row for row in range(7) if not usable(100 + row)]
    lines = [(str(paths[0]), row) for row in dropped] + [(str(paths[1]), row) for row in of_second]
    for epoch in (0, 1):
        found = [one.streamed for rank in range(ranks) for one in batches(stream, rank=rank, ranks=ranks).windows(epoch, 0)]
        told = [(note.origin.file, note.origin.index) for one in found if one for _, note in one.notes]
        assert sorted(told) == sorted(lines)
        again = sum(turn % 7 in of_second for turn in range(30))
        assert sum(one.dropped for one in found if one) == len(dropped) + again
        assert sum(one.slots for one in found if one) == 60 * ranks


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("usable_rows", [0, 8])
def test_dropped_rows_at_the_end_are_counted_once(tmp_path: Path, packed: bool, ranks: int, usable_rows: int) -> None:
    """Sixteen dropped rows after those that can be trained, or nothing else at all: more than are packed together. Oracle: by hand."""
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"instruction": "xx", "output": str(row) if row < usable_rows else ""}) + "\n"
                            for row in range(usable_rows + 16)))
    stream = opened([path], packed=packed, disable_shuffling=True).stream
    found = [one.streamed for rank in range(ranks) for one in batches(stream, rank=rank, ranks=ranks).windows(0, 0)]
    assert sum(one.dropped for one in found if one) == 16
    told = sorted(note.origin.index for one in found if one for _, note in one.notes)
    assert told == list(range(usable_rows, usable_rows + 16))


@pytest.mark.parametrize("workers", [0, 2])
def test_packed_sequences_may_be_padded(tmp_path: Path, workers: int) -> None:
    """Plain packing, whose rows see each other: the same sequences as laid end to end, two in a batch, padded. Oracle: those."""
    stream = opened([write(tmp_path / "a.jsonl", 50)], packed=True).stream
    flat = [batch.input_ids[0].tolist() for one in batches(stream, per_device=1).windows(0, 0) for batch in one.batches]
    found = list(StreamBatches(stream, Share(2, 1, 0, 1), Loading(padded, workers, 60)).windows(0, 0))
    rows = [row[mask == 1].tolist() for one in found for batch in one.batches if batch.attention_mask is not None
            for row, mask in zip(batch.input_ids, batch.attention_mask, strict=True)]
    assert rows == flat and len(rows) > 10


def test_held_out_rows_are_never_trained(tmp_path: Path) -> None:
    """The first rows of the shuffled stream, each once, though the shorter set comes round again; a file named twice is one file."""
    paths = [write(tmp_path / "a.jsonl", 30), write(tmp_path / "b.jsonl", 8, 100), tmp_path / "a.jsonl"]
    plain = opened(paths, mix_strategy="interleave_over", val_size=0).stream
    stream, held_out, audit = opened(paths, mix_strategy="interleave_over", val_size=9)
    assert held_out is not None and audit is not None
    first = list(dict.fromkeys((raw.file % 2 if raw.file == 2 else raw.file, raw.row) for raw in plain.order.slots(0, 0)))[:9]
    assert stream.order.held_out == frozenset(first)
    kept = {int(held_out[number].input_ids[0]) for number in range(len(held_out))}
    assert len(kept) + audit.dropped == 9
    for epoch in range(3):
        trained = {int(row[0]) for one in batches(stream).windows(epoch, 0) for batch in one.batches for row in batch.input_ids}
        everything = {number for number in (*range(30), *range(100, 108)) if usable(number)}
        assert trained - {0} == everything - kept - {0}  # 0 is also what a batch without rows is made of


def test_too_many_held_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="val_size: 20 holds out 20 rows and leaves none to train on"):
        opened([write(tmp_path / "a.jsonl", 20)], val_size=20)


@pytest.mark.parametrize(("count", "lengths"), [(20, [4, 4, 4, 4, 4]), (21, [4, 4, 4, 4, 4]), (23, [4, 4, 4, 4, 4]), (24, [4] * 6)])
def test_drop_last(tmp_path: Path, count: int, lengths: list[int]) -> None:
    """Rows that do not fill a step of 4 are left out, and the step before them ends the epoch."""
    stream = opened([write(tmp_path / "a.jsonl", count)]).stream
    windows = list(batches(stream, accumulation=2, drop_last=True).windows(0, 0))
    assert [window.streamed.slots for window in windows if window.streamed] == lengths
    assert [window.ends_epoch for window in windows] == [False] * (len(lengths) - 1) + [True]


def test_too_few_rows_for_a_step(tmp_path: Path) -> None:
    stream = opened([write(tmp_path / "a.jsonl", 3)]).stream
    with pytest.raises(InputError, match="too few rows for one optimizer step"):
        list(batches(stream, accumulation=2, drop_last=True).windows(0, 0))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("packed", [False, True])
def test_a_row_that_cannot_be_read(tmp_path: Path, workers: int, packed: bool) -> None:
    """One line with file and line, also from a worker."""
    path = write(tmp_path / "a.jsonl", 30)
    path.write_text(path.read_text() + '{"instruction": \n')
    stream = opened([path], packed=packed).stream
    with pytest.raises(InputError) as found:
        list(batches(stream, workers=workers).windows(0, 0))
    assert str(found.value).startswith(f"{path}:31:") and "\n" not in str(found.value)


def test_a_sample_names_its_line(tmp_path: Path) -> None:
    """Blank lines count."""
    path = write(tmp_path / "b.jsonl", 5)
    path.write_text("\n\n" + path.read_text())
    stream = opened([write(tmp_path / "a.jsonl", 4), path]).stream
    raws = {(raw.file, raw.row): sample_id(raw) for raw in stream.order.slots(0, 0)}
    assert str(stream.origin(raws[1, 4])) == f"{path}:7"
    assert str(stream.origin(raws[0, 0])) == f"{tmp_path / 'a.jsonl'}:1"


def test_a_digest_is_that_of_the_data(tmp_path: Path) -> None:
    """Other content, size, settings or held-out rows are other data; another place is not."""
    path = write(tmp_path / "a.jsonl", 30)
    first = opened([path]).stream.digest()
    assert opened([path]).stream.digest() == first
    digests = {first, opened([path], seed=6).stream.digest(), opened([path], val_size=3).stream.digest(),
               opened([path], buffer_size=9).stream.digest(), opened([path], max_samples=9).stream.digest()}
    path.write_text(path.read_text().replace("xx", "yy", 1))
    digests.add(opened([path]).stream.digest())
    assert len(digests) == 6


def test_the_head_is_what_is_trained_first(tmp_path: Path) -> None:
    """What `preview` shows: the rows of the first slots, in order."""
    stream = opened([write(tmp_path / "a.jsonl", 30)]).stream
    head = stream.head(16)
    filled = [batch for one in batches(stream).windows(0, 0) for batch in one.batches if batch.sample_ids]
    seen = [row for batch in filled for row in batch.input_ids[:, 0].tolist()]
    assert [int(head[number].input_ids[0]) for number in range(len(head))] == seen[: len(head)]
    assert len(head) > 8


def test_the_head_of_a_packed_stream_is_what_is_trained_first(tmp_path: Path) -> None:
    """The sequences of the slots that are packed together, however few slots are asked for."""
    stream = opened([write(tmp_path / "a.jsonl", 30)], packed=True).stream
    head = stream.head(1)
    seen = [batch.input_ids[0].tolist() for one in batches(stream, per_device=1).windows(0, 0) for batch in one.batches]
    assert len(head) > 2
    assert [head[number].input_ids.tolist() for number in range(len(head))] == seen[: len(head)]

"""Stores, example sets, the cache, worker processes and the audit."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tunewright.data.audit import Audit, Note, SetAudit
from tunewright.data.cache import Built, Fingerprint, TokenCache, Tokenised
from tunewright.data.examples import ExampleSet, StoreBuilder, Tokens, TokenStore
from tunewright.data.records import Origin
from tunewright.data.shards import write_shard
from tunewright.data.tokenise_set import Progress
from tunewright.data.workers import ordered_map
from tunewright.errors import InputError, LostRankError

LENGTHS = (4, 9, 1, 6)


def store(lengths: tuple[int, ...] = LENGTHS, file: str = "a.jsonl", first: int = 100) -> TokenStore:
    """Row r is first + 10 r, first + 10 r + 1, ...; its first label is not trained."""
    builder = StoreBuilder([file])
    for row, length in enumerate(lengths):
        ids = np.arange(first + 10 * row, first + 10 * row + length, dtype=np.int32)
        labels = ids.copy()
        labels[0] = -100
        builder.add(Tokens(ids, labels), Origin(file, row, row + 1))
    return builder.build()


def test_store_keeps_rows_apart() -> None:
    made = store()
    assert made.offsets.tolist() == [0, 4, 13, 14, 20]
    assert made.tokens(3).input_ids.tolist() == [130, 131, 132, 133, 134, 135]
    assert made.tokens(3).labels.tolist() == [-100, 131, 132, 133, 134, 135]
    assert [made.origin(row) for row in range(4)] == [Origin("a.jsonl", row, row + 1) for row in range(4)]
    assert (made.input_ids.dtype, made.labels.dtype, made.offsets.dtype) == (np.int32, np.int32, np.int64)


@pytest.mark.parametrize("at_a_time", [1, 2, 3, 4096])
def test_trained_labels_of_each_row(monkeypatch: pytest.MonkeyPatch, at_a_time: int) -> None:
    """All but the first label of each row; oracle: the lengths."""
    monkeypatch.setattr("tunewright.data.examples._ROWS_AT_A_TIME", at_a_time)
    assert store().trained().tolist() == [length - 1 for length in LENGTHS]
    assert store(()).trained().tolist() == []


def test_examples_of_two_stores() -> None:
    examples = ExampleSet.of([store((2,)), store((3, 1), "b.jsonl", 500)])
    assert len(examples) == 3
    assert examples.lengths.tolist() == [2, 3, 1]
    assert [example.input_ids.tolist() for example in examples] == [[100, 101], [500, 501, 502], [510]]
    assert [example.bounds.tolist() for example in examples] == [[0, 2], [0, 3], [0, 1]]
    assert [example.sample_id for example in examples] == [0, 1, 2]
    assert examples.origin(1) == Origin("b.jsonl", 0, 1)
    assert (examples.num_tokens, examples.num_trained_tokens) == (6, 3)
    assert [example.input_ids.tolist() for example in examples.subset(np.array([2, 0]))] == [[510], [100, 101]]


def test_packed_examples() -> None:
    """Capacity 10: 9 + 1 fill one sequence, 6 + 4 another; segments keep their labels and their origins."""
    packed = ExampleSet.of([store()]).packed(10)
    assert packed.lengths.tolist() == [10, 10]
    assert packed[0].input_ids.tolist() == [100, 101, 102, 103, 130, 131, 132, 133, 134, 135]
    assert packed[0].labels.tolist() == [-100, 101, 102, 103, -100, 131, 132, 133, 134, 135]
    assert packed[0].bounds.tolist() == [0, 4, 10]
    assert packed[1].bounds.tolist() == [0, 9, 10]
    assert [origin.line for origin in packed.origins(1)] == [2, 3]
    assert packed.num_trained_tokens == ExampleSet.of([store()]).num_trained_tokens == 16
    with pytest.raises(IndexError):
        packed[2]


def test_rows_of_one_origin_are_one() -> None:
    """Two pieces of one document, and a row that was drawn twice, count as one row; files of two sets do not mix."""
    builder = StoreBuilder(["a.txt"])
    for index in (4, 4, 2, 4):
        builder.add(Tokens(np.ones(2, np.int32), np.ones(2, np.int32)), Origin("a.txt", index, 9))
    assert ExampleSet.of([builder.build(), store((1, 1))]).rows_by_origin().tolist() == [0, 0, 1, 0, 2, 3]


def fingerprint(**changes: str) -> Fingerprint:
    return Fingerprint("facts", {"template": "a", "tokenizer": "b", "cutoff_len": "32", **changes})


HIT = "token cache: hit for facts: the same data files, tokenizer, template, settings and code"
NOTES = (Note(Origin("a.jsonl", 4, 5), "dropped", "unknown role", "turn 1 is `é`"),
         Note(Origin("a.jsonl", 6), "changed", "cut"))


class Counting:
    """A build that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, folder: Path) -> Built:
        self.calls += 1
        return Built(((folder / "0.shard", write_shard(folder / "0.shard", store(), NOTES, 7)),), 7)


def same(first: Tokenised, second: Tokenised) -> bool:
    arrays = ("input_ids", "labels", "offsets", "origins")
    return (first.rows, first.notes, first.store.files) == (second.rows, second.notes, second.store.files) and all(
        np.array_equal(getattr(first.store, name), getattr(second.store, name)) for name in arrays)


def test_cache_hits_and_says_why_it_misses(tmp_path: Path) -> None:
    said: list[str] = []
    build = Counting()
    cache = TokenCache(tmp_path / "deep" / "cache", False, said.append)
    made = cache.get(fingerprint(), ["a.jsonl"], build)
    again = cache.get(fingerprint(), ["a.jsonl"], build)
    assert build.calls == 1
    assert same(made, again)
    assert isinstance(again.store.input_ids, np.memmap)
    cache.get(fingerprint(template="c"), ["a.jsonl"], build)
    cache.get(fingerprint(template="c", cutoff_len="64"), ["a.jsonl"], build)
    cache.get(Fingerprint("others", {"template": "a"}), ["a.jsonl"], build)
    assert said == [
        "token cache: miss for facts: not tokenised before",
        HIT,
        "token cache: miss for facts: template changed since it was last tokenised",
        "token cache: miss for facts: cutoff_len changed since it was last tokenised",
        "token cache: miss for others: not tokenised before",
    ]


def test_cache_gives_todays_file_names(tmp_path: Path) -> None:
    """The content decides, so a moved file is a hit; messages name it where it is now."""
    cache = TokenCache(tmp_path, False, lambda line: None)
    cache.get(fingerprint(), ["a.jsonl"], Counting())
    moved = cache.get(fingerprint(), ["b.jsonl"], Counting())
    assert moved.store.origin(1) == Origin("b.jsonl", 1, 2)
    assert [note.origin.file for note in moved.notes] == ["b.jsonl", "b.jsonl"]


def test_overwrite(tmp_path: Path) -> None:
    build = Counting()
    said: list[str] = []
    for _ in range(2):
        TokenCache(tmp_path, True, said.append).get(fingerprint(), ["a.jsonl"], build)
    assert build.calls == 2
    assert said == ["token cache: facts is tokenised anew (overwrite_cache)"] * 2


def damage_flip(entry: Path) -> str:
    content = bytearray((entry / "labels.npy").read_bytes())
    content[-1] ^= 1
    (entry / "labels.npy").write_bytes(content)
    return "labels.npy does not match its checksum"


def damage_cut(entry: Path) -> str:
    size = (entry / "input_ids.npy").stat().st_size
    os.truncate(entry / "input_ids.npy", size - 3)
    return f"input_ids.npy has {size - 3} bytes, {size} wanted"


def damage_delete(entry: Path) -> str:
    (entry / "notes.jsonl").unlink()
    return "notes.jsonl is missing"


def damage_manifest(entry: Path) -> str:
    (entry / "manifest.json").write_text('{"version": 1')
    return "its manifest is missing or damaged"


@pytest.mark.parametrize("damage", [damage_flip, damage_cut, damage_delete, damage_manifest])
def test_damaged_entries_are_found_said_and_made_anew(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    said: list[str] = []
    cache = TokenCache(tmp_path, False, said.append)
    made = Tokenised(store(), 7, NOTES)
    cache.get(fingerprint(), ["a.jsonl"], Counting())
    entry = tmp_path / fingerprint().digest
    expected = damage(entry)
    assert same(cache.get(fingerprint(), ["a.jsonl"], Counting()), made)
    assert said[1] == f"token cache: facts is tokenised anew: {expected} ({entry})"
    assert same(cache.get(fingerprint(), ["a.jsonl"], Counting()), made)
    assert said[2] == HIT
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".lock-{entry.name[:16]}", entry.name]


def test_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "file").write_text("x")
    made = TokenCache(tmp_path / "file" / "cache", False, said.append).get(fingerprint(), ["a.jsonl"], Counting())
    assert same(made, Tokenised(store(), 7, NOTES))
    assert said == [f"token cache: not used, Not a directory: {tmp_path / 'file' / 'cache'}; "
                    "set data_cache_dir to a folder that can be written, or to none"]


def test_leftovers_of_killed_runs_go_after_a_week(tmp_path: Path) -> None:
    for name, age_s in ((".building-old", 700_000), (".building-new", 60), (".staging-old", 700_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "labels.npy").write_text("x")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    TokenCache(tmp_path, False, lambda line: None).get(fingerprint(), ["a.jsonl"], Counting())
    assert sorted(path.name for path in tmp_path.glob(".[bs]*-*")) == [".building-new"]


def test_concurrent_runs_share_one_build(tmp_path: Path) -> None:
    """Eight at once: the lock lets one build, seven find it."""
    build = Counting()
    results: list[Tokenised] = []
    threads = [threading.Thread(target=lambda: results.append(
        TokenCache(tmp_path, False, lambda line: None).get(fingerprint(), ["a.jsonl"], build))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert build.calls == 1
    assert len(results) == 8
    assert all(same(result, results[0]) for result in results)


def square(number: int) -> int:
    if number == 13:
        raise InputError("thirteen", where="a:1", mend="leave it out")
    if number == 14:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_ordered_map(workers: int) -> None:
    """Oracle: the built-in map. Also with items and results that fill the pipes."""
    assert list(ordered_map(square, range(10), workers)) == list(map(square, range(10)))
    assert list(ordered_map(square, [], workers)) == []
    large = [bytes([number]) * 1_000_000 for number in range(5)]
    assert list(ordered_map(bytes.swapcase, large, workers)) == list(map(bytes.swapcase, large))


def test_ordered_map_reads_ahead_no_further_than_two_items_for_each_worker() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    results = ordered_map(square, items(), 2)
    assert next(results) == 0
    assert 2 <= len(taken) <= 4


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_workers_arrive_whole(workers: int) -> None:
    with pytest.raises(InputError) as caught:
        list(ordered_map(square, [1, 13, 2], workers))
    assert caught.value.line() == "a:1: thirteen; leave it out"


def test_a_killed_worker_is_named() -> None:
    with pytest.raises(LostRankError) as caught:
        list(ordered_map(square, [1, 14, 2, 3], 2))
    assert caught.value.line() == (
        "a process that tokenises ended unexpectedly; lower preprocessing_num_workers if memory ran out")


def note(line: int, reason: str = "unknown role", detail: str = "turn 1 is `x`", action: str = "dropped") -> Note:
    return Note(Origin("a.jsonl", line - 1, line), action, reason, detail)  # type: ignore[arg-type]


def test_audit_summary_and_file(tmp_path: Path) -> None:
    audit = Audit((SetAudit("facts", 9, (note(2), note(4), note(5, "cut", "70 tokens", "changed"))),
                   SetAudit("others", 3, ())))
    assert audit.summary() == [
        "facts: 7 of 9 rows used", "  2 dropped: unknown role (first: a.jsonl:2)",
        "  1 changed: cut (first: a.jsonl:5)",
        "others: 3 of 3 rows used"]
    audit.write(tmp_path / "audit.jsonl")
    assert [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()] == [
        {"dataset": "facts", "file": "a.jsonl", "line": 2, "row": 2, "action": "dropped", "reason": "unknown role",
         "detail": "turn 1 is `x`"},
        {"dataset": "facts", "file": "a.jsonl", "line": 4, "row": 4, "action": "dropped", "reason": "unknown role",
         "detail": "turn 1 is `x`"},
        {"dataset": "facts", "file": "a.jsonl", "line": 5, "row": 5, "action": "changed", "reason": "cut",
         "detail": "70 tokens"}]


REFUSED = {
    "all of one kind": (3, [note(1, "no trainable token", "empty"), note(2, "no trainable token", "empty"),
                            note(3, "no trainable token", "empty")],
                        1.0, "facts: no trainable token in 3 of 3 rows: empty: a.jsonl:1, a.jsonl:2, a.jsonl:3; mend the rows"),
    "too many": (13, [note(line, detail=f"turn {line}") for line in range(1, 8)], 0.5,
                 "facts: unknown role in 7 of 13 rows: a.jsonl:1 (turn 1), a.jsonl:2 (turn 2), a.jsonl:3 (turn 3), a.jsonl:4 (turn 4), "
                 "a.jsonl:5 (turn 5) and 2 more; mend the rows or raise max_dropped_fraction (now 0.5)"),
    "of two kinds": (2, [note(1), note(2, "empty document", "")], 0.0,
                     "facts: unusable (empty document, unknown role) in 2 of 2 rows: a.jsonl:1 (turn 1 is `x`), a.jsonl:2; mend the rows"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_too_many_dropped_rows_are_refused(case: str) -> None:
    rows, notes, allowed, message = REFUSED[case]
    with pytest.raises(InputError) as caught:
        SetAudit("facts", rows, tuple(notes)).check(allowed)
    assert caught.value.line() == message


def test_few_dropped_rows_are_not() -> None:
    SetAudit("facts", 14, tuple(note(line) for line in range(1, 8))).check(0.5)
    SetAudit("facts", 1, (note(1, "cut", "", "changed"),)).check(0.0)
    SetAudit("facts", 3, ()).check(0.0)


def test_progress_is_said_every_ten_seconds() -> None:
    """A clock that ticks four seconds a look: 0, 4, 8, 12, 16, 20, 24."""
    said: list[str] = []
    ticks = iter(range(0, 1000, 4))
    progress = Progress("facts", said.append, lambda: next(ticks))
    for rows in (100, 200, 300, 400, 500, 600):
        progress.at(rows)
    assert said == ["facts: 300 rows tokenised, 25 rows/s", "facts: 600 rows tokenised, 25 rows/s"]

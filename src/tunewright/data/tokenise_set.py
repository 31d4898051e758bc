"""One data set from its files, or from the cache, to tokens."""

from __future__ import annotations

import contextlib
import gc
import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunewright.data.audit import Note
from tunewright.data.cache import Built, Fingerprint, Report, TokenCache, Tokenised, without_cache
from tunewright.data.chunks import Choice as Choice
from tunewright.data.chunks import Lines, Rows, chunks, cores
from tunewright.data.encoding import RowEncoder
from tunewright.data.examples import StoreBuilder
from tunewright.data.fingerprint import fingerprint
from tunewright.data.formats.convert import convert
from tunewright.data.formats.fields import Refusal
from tunewright.data.formats.layout import OPTIONAL_COLUMNS, Layout
from tunewright.data.records import Record
from tunewright.data.shards import Shard, read_shard, unwritable, write_shard
from tunewright.data.sources import Settled, refuse_absent
from tunewright.data.workers import ordered_map
from tunewright.errors import InputError, require

_SAY_EVERY_S: Final = 10.0
_BYTES_PER_WORKER: Final = 4_000_000
"""Less than this takes a process about as long as to start: measured with 300 tokens to a row."""
_MOST_WORKERS: Final = 16
_PLAN: Final = "plan.json"


@dataclass(frozen=True, slots=True)
class Pace:
    """`workers`: processes, None for as many as pay; `batch_size`: rows that one of them is given at a time."""

    workers: int | None
    batch_size: int

    def processes(self, settled: Settled) -> int:
        """How many tokenise this data set."""
        if self.workers is not None:
            return self.workers
        size = sum(file.path.stat().st_size for file in settled.source.files)
        return max(1, min(cores(), _MOST_WORKERS, size // _BYTES_PER_WORKER))


@dataclass(frozen=True, slots=True)
class Tokeniser:
    """How data sets become tokens in this run. `settings` are what the tokens depend on, `cache` None for none."""

    encoder: RowEncoder
    settings: Mapping[str, Any]
    tokenizer_digest: str
    cache: TokenCache | None
    pace: Pace
    report: Report

    def __call__(self, settled: Settled, choice: Choice) -> Tokenised:
        """Tokens of the chosen rows, in order, in files that are mapped into memory."""
        files = [str(file.path) for file in settled.source.files]
        before = _states(settled)

        def build(folder: Path) -> Built:
            built = self._build(settled, choice, folder)
            _refuse_changed(settled, before)
            return built

        if self.cache is None:
            return without_cache(files, build)
        return self.cache.get(self._key(settled, choice), files, build)

    def is_cached(self, settled: Settled, choice: Choice) -> bool:
        """Whether the tokens of the chosen rows are in the cache."""
        return self.cache is not None and self.cache.holds(self._key(settled, choice))

    def _key(self, settled: Settled, choice: Choice) -> Fingerprint:
        seed = None if choice.num_samples is None else choice.seed if choice.before is None else [choice.seed, *choice.before]
        settings = {**self.settings, "max_samples": choice.max_samples, "seed of num_samples": seed}
        return fingerprint(settled, self.tokenizer_digest, settings)

    def _build(self, settled: Settled, choice: Choice, folder: Path) -> Built:
        """Write the shards that `folder` lacks: convert and encode in the worker processes, each of which writes its own."""
        work = Work(self.encoder, settled.layout, tuple(str(file.path) for file in settled.source.files), folder)
        found = _Seen(chunks(settled, choice, _planned_size(folder, self.pace.batch_size)))
        processes = self.pace.processes(settled)
        if processes > 1:
            self.encoder(())  # what it makes for its first rows is made here, once, and not in every process
        progress = Progress(settled.source.name, self.report)
        made: list[tuple[Path, Shard]] = []
        rows = 0
        columns: set[str] = set()
        with _without_old_garbage():
            for number, (shard, is_old) in enumerate(ordered_map(work, found, processes)):
                made.append((work.path(number), shard))
                rows += shard.rows
                columns.update(shard.columns)
                progress.at(rows, found.done.popleft(), is_old=is_old)
        if rows == 0:
            raise InputError("the data set holds no rows", where=settled.source.name)
        if choice.num_samples is None and (choice.max_samples is None or rows < choice.max_samples):
            refuse_absent(settled, columns)
        progress.end(rows)
        return Built(tuple(made), rows)


def _states(settled: Settled) -> list[tuple[int, int, int]]:
    """What changes when a file is written or replaced: its number, its size, its time."""
    found = [file.path.stat() for file in settled.source.files]
    return [(one.st_ino, one.st_size, one.st_mtime_ns) for one in found]


def _refuse_changed(settled: Settled, before: list[tuple[int, int, int]]) -> None:
    """Rows that were read of two states of a file are not kept under the hash of one."""
    for file, old, new in zip(settled.source.files, before, _states(settled), strict=True):
        require(old == new, "the file was changed while it was tokenised", where=str(file.path), mend="run the command again")


@contextlib.contextmanager
def _without_old_garbage() -> Iterator[None]:
    """Python looks for cycles only among what is made from here on; the rest is large, and was searched again for every few rows. What
    others have left out already stays out."""
    mine = gc.get_freeze_count() == 0
    if mine:
        gc.freeze()
    try:
        yield
    finally:
        if mine:
            gc.unfreeze()


class _Seen:
    """Chunks, and for each that was taken, which part of the data set is then read."""

    def __init__(self, found: Iterator[Lines | Rows]) -> None:
        self._found = found
        self.done: deque[float | None] = deque()

    def __iter__(self) -> Iterator[Lines | Rows]:
        for chunk in self._found:
            self.done.append(chunk.done)
            yield chunk


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker process does with a chunk: convert its rows, encode them, write them as a shard into `folder`."""

    encoder: RowEncoder
    layout: Layout
    files: tuple[str, ...]
    folder: Path

    def __call__(self, chunk: Lines | Rows) -> tuple[Shard, bool]:
        """The shard of the chunk, and whether it was there, whole, before."""
        path = self.path(chunk.number)
        found = read_shard(path) if path.exists() else None
        if found is not None and found.rows == chunk.count:
            return found, True
        notes: list[tuple[int, Note]] = []
        numbers: list[int] = []
        records: list[Record] = []
        columns: set[str] = set()
        wanted = {self.layout.columns[key] for key in self.layout.given if key in OPTIONAL_COLUMNS}
        for number, row in enumerate(chunk.rows()):
            if wanted:
                columns |= wanted & row.values.keys()
            outcome = convert(row, self.layout)
            if isinstance(outcome, Refusal):
                notes.append((number, Note(row.origin, "dropped", outcome.reason, outcome.detail)))
                continue
            notes += [(number, Note(row.origin, "changed", change)) for change in outcome.changes]
            numbers.append(number)
            records.append(outcome.record)
        store = StoreBuilder(self.files)
        for number, encoded in zip(numbers, self.encoder(records) if records else [], strict=True):
            for piece in encoded.pieces:
                store.add(piece, encoded.origin)
            notes += [(number, note) for note in encoded.notes]
        ordered = [note for _, note in sorted(notes, key=lambda one: one[0])]
        return write_shard(path, store.build(), ordered, chunk.count, sorted(columns)), False

    def path(self, number: int) -> Path:
        """Where the shard of a chunk is."""
        return self.folder / f"{number:08d}.shard"


class Progress:
    """Says every ten seconds how far the work on a large data set is, and how long it still takes; `done` is what is done with its rows."""

    def __init__(self, name: str, report: Report, clock: Callable[[], float] = time.monotonic, done: str = "tokenised") -> None:
        self._name = name
        self._done = done
        self._report = report
        self._clock = clock
        self._begin = self._said = clock()
        self._old_rows = 0
        self._old_part = 0.0

    def at(self, rows: int, part: float | None = None, *, is_old: bool = False) -> None:
        """`rows` are done, and this part of all; those before and `is_old` were done by an earlier run."""
        if is_old:
            self._old_rows, self._old_part = rows, part or 0.0
        now = self._clock()
        if now - self._said >= _SAY_EVERY_S:
            self._said = now
            took = now - self._begin
            line = f"{self._name}: {rows} rows {self._done}, {(rows - self._old_rows) / took:.0f} rows/s"
            if part is not None and part > self._old_part:
                line += f", {part:.0%}, {_duration(took * (1 - part) / (part - self._old_part))} left"
            self._report(line)

    def end(self, rows: int) -> None:
        """All is done. Says what was taken over from an earlier run, and how fast the rest was, if it took as long as to say so before."""
        if self._old_rows:
            self._report(f"{self._name}: {self._old_rows} of {rows} rows were {self._done} by an earlier run that was stopped")
        took = self._clock() - self._begin
        if took >= _SAY_EVERY_S:
            self._report(f"{self._name}: {rows} rows {self._done} in {_duration(took)}, {(rows - self._old_rows) / took:.0f} rows/s")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _planned_size(folder: Path, size: int) -> int:
    """Rows to a chunk: those of the run whose shards lie in `folder`, so that they fit, else `size`, which is noted there."""
    plan = folder / _PLAN
    try:
        found = json.loads(plan.read_text(encoding="utf-8"))["rows_per_shard"]
        if isinstance(found, int) and found > 0:
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        for old in folder.iterdir():
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        fresh = folder / f".{_PLAN}.new"
        fresh.write_text(json.dumps({"rows_per_shard": size}), encoding="utf-8")
        fresh.rename(plan)
    except OSError as error:
        raise unwritable(folder, error) from error
    return size

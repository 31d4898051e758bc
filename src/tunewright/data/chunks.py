"""A data set cut into chunks of rows, for several processes to work on. Standard library only.

Where a file has one row per line, a chunk is a place in the file, which whoever works on it reads for itself; only line breaks are
looked for here. Any other file is read here, and a chunk holds its rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

from tunewright.data.files import DataFile, count_rows, read_rows
from tunewright.data.formats.fields import Outcome
from tunewright.data.json_rows import Row, line_object
from tunewright.data.mixing import numpy_rows, sampled_rows
from tunewright.data.records import Origin
from tunewright.data.sources import Settled, rows
from tunewright.data.text_files import BOM, bytes_between, count_lines, decoded_head, decoded_line, is_packed, refuse_utf16

_FEW_LINES: Final = 10
"""A file with fewer lines than this may hold all its rows in one of them."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows of a data set are used: `num_samples` random ones, of those the first `max_samples`.

    `before` asks for LLaMA-Factory's draws: (rows, num_samples) of the sets that it drew from before this one; None for ours.
    """

    num_samples: int | None
    max_samples: int | None
    seed: int
    before: tuple[tuple[int, int], ...] | None = None

    def drawn(self, number: int) -> list[int]:
        """The chosen of `number` rows; only where there are `num_samples`."""
        if self.num_samples is None:
            raise ValueError("nothing is drawn")
        found = sampled_rows(number, self.num_samples, self.seed) if self.before is None else numpy_rows(
            number, self.num_samples, self.seed, self.before)
        return [int(row) for row in found[: self.max_samples]]

    def of(self, found: Iterator[tuple[Origin, Outcome]]) -> Iterable[tuple[Origin, Outcome]]:
        """The chosen of rows that are read one by one; without `num_samples` no more is read than needed."""
        if self.num_samples is None:
            return islice(found, self.max_samples)
        everything = list(found)
        return [everything[row] for row in self.drawn(len(everything))]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a data set. `done`: the part of it that is read when they are, None if that is not known."""

    number: int
    count: int
    done: float | None


@dataclass(frozen=True, slots=True)
class Lines(Chunk):
    """Rows in the lines of a file from byte `begin` to `end`, the first of which is line `line`, and holds row `index` or nothing."""

    path: Path
    begin: int
    end: int
    index: int
    line: int

    def rows(self) -> Iterator[Row]:
        """The rows, read from the file. Raises `InputError` as `read_rows` does."""
        index, offset = self.index, self.begin
        content = bytes_between(self.path, self.begin, self.end)
        if self.begin == 0:
            refuse_utf16(self.path, content)
        for number, line in enumerate(content.split(b"\n"), start=self.line):
            text = decoded_line(self.path, line.removeprefix(BOM) if number == 1 else line, offset, number)
            offset += len(line) + 1
            if text and not text.isspace():
                yield Row(line_object(self.path, number, text), Origin(str(self.path), index, number))
                index += 1


@dataclass(frozen=True, slots=True)
class Rows(Chunk):
    """Rows that were read before."""

    held: tuple[Row, ...]

    def rows(self) -> Iterator[Row]:
        """The rows."""
        return iter(self.held)


def chunks(settled: Settled, choice: Choice, size: int) -> Iterator[Lines | Rows]:
    """The chosen rows in order, `size` to a chunk. Raises `InputError` for files that cannot be read."""
    source = settled.source
    if choice.num_samples is not None:
        everything = list(rows(source))
        chosen = choice.drawn(len(everything))
        yield from _numbered(_held((everything[row] for row in chosen), size, len(chosen)))
        return
    yield from _numbered(_first(_of_files(source.files, size), choice.max_samples))


def has_lines(file: DataFile) -> bool:
    """Whether every row of the file is one line."""
    if is_packed(file.path):
        return False
    return file.kind == "jsonl" or (file.kind == "json" and decoded_head(file.path, 4096).lstrip(" \t\r\n")[:1] == "{")


def _of_files(files: Sequence[DataFile], size: int) -> Iterator[Lines | Rows]:
    total = sum(file.path.stat().st_size for file in files) or 1
    before = 0
    for file in files:
        own = file.path.stat().st_size
        if has_lines(file):
            for place in _lines(file, size):
                yield replace(place, done=(before + place.end) / total)
        else:
            part_of = _parts(file)
            for held in _held(read_rows(file), size, None):
                part = part_of(held.held[-1].origin)
                yield held if part is None else replace(held, done=(before + part * own) / total)
        before += own


def _parts(file: DataFile) -> Callable[[Origin], float | None]:
    """Which part of a file has been read with a row of it: by lines, or by rows if the file says how many; None if that is not known."""
    rows_in_all = count_rows(file)
    if rows_in_all:
        return lambda origin: (origin.index + 1) / rows_in_all
    lines_in_all = 0 if file.kind in ("parquet", "arrow") or is_packed(file.path) else count_lines(file.path)
    if lines_in_all < _FEW_LINES:
        return lambda origin: None
    return lambda origin: None if origin.line is None else min(1.0, origin.line / lines_in_all)


def _lines(file: DataFile, size: int) -> Iterator[Lines]:
    """Places of `size` rows each. A file without rows, or of UTF-16, is read as a whole for the error that says so."""
    if file.path.stat().st_size == 0:
        list(read_rows(file))
    begin = end = index = count = 0
    first = line = 1
    with file.path.open("rb") as opened:
        for content in opened:
            end += len(content)
            line += 1
            count += _holds_row(content)
            if count == size:
                yield Lines(0, count, None, file.path, begin, end, index, first)
                begin, index, first, count = end, index + count, line, 0
    if count:
        yield Lines(0, count, None, file.path, begin, end, index, first)
    elif index == 0:
        list(read_rows(file))


def _holds_row(line: bytes) -> bool:
    """Whether a line is more than white space, which may be other than ASCII's."""
    start = line.lstrip()[:1]
    return start == b"{" or (bool(start) and not line.decode("utf-8", "replace").removeprefix("\ufeff").isspace())


def _held(found: Iterable[Row], size: int, total: int | None) -> Iterator[Rows]:
    iterator = iter(found)
    read = 0
    while held := tuple(islice(iterator, size)):
        read += len(held)
        yield Rows(0, len(held), read / total if total else None, held)


def _first(found: Iterator[Lines | Rows], most: int | None) -> Iterator[Lines | Rows]:
    """The first `most` rows. A place that holds more is cut by reading it."""
    left = most
    for chunk in found:
        if left is not None and chunk.count > left:
            yield Rows(0, left, 1.0, tuple(islice(chunk.rows(), left)))
            return
        yield chunk if most is None else replace(chunk, done=1 - (left - chunk.count) / most if left is not None else None)
        left = None if left is None else left - chunk.count
        if left == 0:
            return


def _numbered(found: Iterator[Lines | Rows]) -> Iterator[Lines | Rows]:
    for number, chunk in enumerate(found):
        yield replace(chunk, number=number)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

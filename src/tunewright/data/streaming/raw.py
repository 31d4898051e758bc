"""Rows of a file that are found but not read: lines as bytes, so that passing over one costs next to nothing.

Files without lines (CSV, Parquet, Arrow, one JSON array) give whole rows instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from tunewright.data.files import DataFile, read_rows
from tunewright.data.json_rows import Row, line_object
from tunewright.data.records import Origin
from tunewright.data.text_files import decoded_head, decoded_line, raw_lines
from tunewright.errors import InputError

_SPACE: Final = ord(" ")
_ASCII: Final = 0x80


class RawRow(NamedTuple):
    """A row: `file` is its number in the stream, `turn` how often its set was read to the end before, `row` its number there.

    `content` is a line, `begin` bytes into the file, or the values of a row whose format has no lines.
    """

    file: int
    turn: int
    row: int
    line: int | None
    begin: int
    content: bytes | dict[str, Any]


def raw_rows(file: DataFile, number: int, turn: int) -> Iterator[RawRow]:
    """Every row of the file in order, `number` being its file's. Raises `InputError` for a file without rows."""
    if is_lines(file):
        yield from _line_rows(file.path, number, turn)
    else:
        for row in read_rows(file):
            yield RawRow(number, turn, row.origin.index, row.origin.line, 0, row.values)


def is_lines(file: DataFile) -> bool:
    """Whether each row is a line."""
    if file.kind == "json":
        return decoded_head(file.path, 4096).lstrip(" \t\r\n")[:1] == "{"
    return file.kind in ("jsonl", "txt")


def parsed(raw: RawRow, file: DataFile) -> Row:
    """The row itself. Raises `InputError` naming file and line where it cannot be read."""
    origin = Origin(str(file.path), raw.row, raw.line)
    if not isinstance(raw.content, bytes):
        return Row(raw.content, origin)
    line = raw.line or 0
    text = decoded_line(file.path, raw.content, raw.begin, line)
    return Row({"text": text.rstrip("\r\n")} if file.kind == "txt" else line_object(file.path, line, text), origin)


def _line_rows(path: Path, number: int, turn: int) -> Iterator[RawRow]:
    index = 0
    for line, (begin, content) in enumerate(raw_lines(path), start=1):
        if not _SPACE < content[0] < _ASCII and _is_blank(content):
            continue
        yield RawRow(number, turn, index, line, begin, content)
        index += 1
    if index == 0:
        raise InputError("the file holds no rows", where=str(path), mend="put rows into it or take it out of the data set")


def _is_blank(line: bytes) -> bool:
    """What `str.isspace` says of the line; mostly its first byte that is not a space decides."""
    rest = line.strip()
    if not rest:
        return True
    return not _SPACE < rest[0] < _ASCII and rest.decode("utf-8", "replace").isspace()

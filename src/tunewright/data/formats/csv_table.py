"""A CSV file of questions and answers in the `csv` sub-folder of a data folder -> Firefly's JSONL beside it. Standard library only."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from tunewright.data.files import DataFile, read_rows
from tunewright.data.formats.table import PAIRS
from tunewright.data.json_rows import Row
from tunewright.durable import sync_directory
from tunewright.errors import refuse

FOLDER: Final = "csv"
"""Sub-folder of dataset_dir in which the sft-json document keeps its tables."""

_QUESTION, _ANSWER = "human", "assistant"


def is_table(file: DataFile, dataset_dir: Path) -> bool:
    """Whether the file is a CSV file in the sub-folder whose header has `human` and `assistant`."""
    if file.path.suffix.lower() != ".csv" or file.path.parent != dataset_dir / FOLDER:
        return False
    return {_QUESTION, _ANSWER} <= next(iter(read_rows(file))).values.keys()


def jsonl_of(file: DataFile, report: Callable[[str], None]) -> DataFile:
    """The JSONL file beside the table, written if it is missing or older; `report` is told what was done.

    A folder that cannot be written leaves the table itself to be read. Raises InputError for a broken table, and for an older file of
    that name that was not made from a table, which is not overwritten.
    """
    beside = DataFile(file.path.with_suffix(".jsonl"), "jsonl")
    if beside.path.exists() and beside.path.stat().st_mtime_ns >= file.path.stat().st_mtime_ns:
        report(f"{beside.path}: read in place of {file.path.name}, from which it was made; remove it to have it made again")
        return beside
    if beside.path.exists() and not _was_converted(beside):
        refuse(f"older than {file.path.name} and not made from it, so not overwritten", where=str(beside.path),
               mend="move it away, or name it as the data set")
    try:
        count = _write(beside.path, read_rows(file))
    except PermissionError as error:
        report(f"{file.path}: read as it is, because {beside.path.name} cannot be written beside it ({error.strerror})")
        return file
    report(f"{file.path}: {count} rows converted to {beside.path}, which is read")
    return beside


def _was_converted(file: DataFile) -> bool:
    first = next(iter(read_rows(file)), None) if file.path.stat().st_size else None
    return first is not None and {"conversation_id", PAIRS} <= first.values.keys()


def _write(path: Path, rows: Iterable[Row]) -> int:
    """Write every row in one piece: a reader sees the old file or the new one, and several ranks may write at once."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    count = 0
    try:
        with fresh.open("w", encoding="utf-8") as file:
            for count, row in enumerate(rows, start=1):
                file.write(json.dumps(_firefly(row, count), ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    sync_directory(path.parent)
    return count


def _firefly(row: Row, number: int) -> dict[str, Any]:
    """Firefly's form: one conversation of one question and its answer; every other column stays."""
    others = {name: value for name, value in row.values.items() if name not in (_QUESTION, _ANSWER)}
    pair = {_QUESTION: row.values[_QUESTION], _ANSWER: row.values[_ANSWER]}
    return {"conversation_id": number, **others, PAIRS: [pair]}

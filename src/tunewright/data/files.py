"""One data file to rows, by its type. Standard library only, but for Parquet and Arrow, which need pyarrow.

Types are chosen by the ending of the name, never by what a folder asks for: no script is run or imported.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.data.json_rows import Row, read_json, read_json_head, read_jsonl
from tunewright.data.records import Origin
from tunewright.data.text_files import UNPACKED, decoded_lines, empty_file, last_bytes
from tunewright.errors import InputError, missing_package

if TYPE_CHECKING:
    import pyarrow

KINDS = {
    ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".txt": "txt", ".parquet": "parquet",
    ".arrow": "arrow",
}
"""Ending of the name -> type."""

FAMILY = {"jsonl": "json"}
"""Types that may lie in one folder together."""

_TEXTS = ("json", "jsonl", "csv", "txt")
"""Types that may be packed as a whole; Parquet and Arrow pack their own columns."""


def kind_of(name: str | Path) -> str | None:
    """The type of a file by the ending of its name, under that of a packed one (`rows.jsonl.gz`), or None."""
    path = Path(name)
    if path.suffix.lower() in UNPACKED:
        kind = KINDS.get(Path(path.stem).suffix.lower())
        return kind if kind in _TEXTS else None
    return KINDS.get(path.suffix.lower())


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file and its type, a value of `KINDS`."""

    path: Path
    kind: str


def read_rows(file: DataFile) -> Iterator[Row]:
    """Every row of the file in order. Raises `InputError` naming file and line where it cannot be read."""
    return _READERS[file.kind](file.path)


def read_head(file: DataFile, size: int) -> Iterator[Row]:
    """Rows near the beginning of a large file, for a quick look; the caller stops when it has seen enough.

    Parquet and Arrow files yield nothing here: only their first and last bytes are checked.
    """
    if file.kind == "json":
        return read_json_head(file.path, size)
    if file.kind in ("parquet", "arrow"):
        _check_magic(file)
        return iter(())
    return _READERS[file.kind](file.path)


def count_rows(file: DataFile) -> int | None:
    """The number of rows, of files that say it (Parquet); None for others."""
    if file.kind != "parquet":
        return None
    arrow = _pyarrow()
    from pyarrow import parquet

    try:
        return int(parquet.ParquetFile(file.path).metadata.num_rows)
    except (arrow.ArrowException, OSError, ValueError):
        return None


def _read_csv(path: Path) -> Iterator[Row]:
    """Rows of a CSV file (RFC 4180: commas, double quotes, line breaks inside quotes) whose first line names the columns."""
    csv.field_size_limit(sys.maxsize)  # the default of 131,072 characters refuses long documents
    lines = iter(decoded_lines(path))
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, [])
        _check_header(path, header)
        begin = reader.line_num + 1
        index = 0
        for fields in reader:
            if fields:
                _check_fields(path, begin, header, fields)
                yield Row(dict(zip(header, fields, strict=True)), Origin(str(path), index, begin))
                index += 1
            begin = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"not valid CSV: {error}", where=f"{path}:{reader.line_num}",
                         mend="check the quotes") from error
    if index == 0:
        raise InputError("the file holds no rows below its header", where=str(path))


def _check_header(path: Path, header: list[str]) -> None:
    twice = [name for position, name in enumerate(header) if name in header[:position]]
    if twice:
        raise InputError(f"the column `{twice[0]}` is there twice", where=f"{path}:1")
    for separator, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:
            raise InputError(f"the columns are separated by {word}, not by commas", where=f"{path}:1", mend="save the file with commas")
    if not all(name.strip() for name in header):
        raise InputError("a column has no name", where=f"{path}:1",
                         mend="the first line of a CSV file names its columns")


def _check_fields(path: Path, line: int, header: list[str], fields: list[str]) -> None:
    if len(fields) != len(header):
        raise InputError(
            f"{len(fields)} fields, but the header has {len(header)}: {', '.join(header)}", where=f"{path}:{line}",
            mend='put fields with a comma or a line break into "quotes"')


def _read_txt(path: Path) -> Iterator[Row]:
    """One document per line, in the column `text`; blank lines separate documents and are none."""
    index = 0
    for number, line in enumerate(decoded_lines(path), start=1):
        if not line.isspace():
            yield Row({"text": line.rstrip("\r\n")}, Origin(str(path), index, number))
            index += 1
    if index == 0:
        raise InputError("the file holds no rows", where=str(path))


def _read_parquet(path: Path) -> Iterator[Row]:
    _refuse_empty(path)
    arrow = _pyarrow()
    from pyarrow import parquet

    try:
        yield from _batches_to_rows(path, parquet.ParquetFile(path).iter_batches(batch_size=1024))
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise _not_arrow(path, "Parquet", error) from error


def _read_arrow(path: Path) -> Iterator[Row]:
    """Rows of an Arrow IPC file or stream."""
    _refuse_empty(path)
    arrow = _pyarrow()
    try:
        with arrow.memory_map(str(path)) as source:
            yield from _batches_to_rows(path, _record_batches(arrow, source))
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise _not_arrow(path, "Arrow", error) from error


def _record_batches(arrow: Any, source: Any) -> Iterator[pyarrow.RecordBatch]:
    from pyarrow import ipc

    if source.read(6) == b"ARROW1":
        reader = ipc.open_file(source)
        yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        source.seek(0)
        yield from ipc.open_stream(source)


def _batches_to_rows(path: Path, batches: Iterable[pyarrow.RecordBatch]) -> Iterator[Row]:
    index = 0
    for batch in batches:
        nested = [field.name for field in batch.schema if _objects_below(field.type) > 1]
        for values in batch.to_pylist():
            for name in nested:
                values[name] = without_nulls(values[name])
            yield Row(values, Origin(str(path), index))
            index += 1
    if index == 0:
        raise InputError("the file holds no rows", where=str(path))


def without_nulls(value: Any) -> Any:
    """The value without the keys of objects that are null: Arrow writes all keys that any row has into every row."""
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def _objects_below(kind: Any) -> int:
    """How many objects lie inside each other in a column of this type: 1 in a list of messages, more where these hold calls."""
    from pyarrow import StructType

    below = [_objects_below(kind.field(at).type) for at in range(kind.num_fields)]
    return max(below, default=0) + isinstance(kind, StructType)


def _check_magic(file: DataFile) -> None:
    _refuse_empty(file.path)
    if file.kind == "parquet" and last_bytes(file.path, 4) != b"PAR1":
        raise InputError("not a Parquet file, or truncated: it does not end in PAR1", where=str(file.path))


def _refuse_empty(path: Path) -> None:
    if path.stat().st_size == 0:
        raise empty_file(path)


def _not_arrow(path: Path, kind: str, error: Exception) -> InputError:
    said = str(error).splitlines() or ["it is damaged"]
    return InputError(f"not a readable {kind} file: {said[0]}", where=str(path))


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise missing_package(
            "pyarrow", feature="reading Parquet and Arrow files", parameter="dataset", extra="arrow") from error
    return pyarrow


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "json": read_json, "jsonl": read_jsonl, "csv": _read_csv, "txt": _read_txt, "parquet": _read_parquet,
    "arrow": _read_arrow,
}

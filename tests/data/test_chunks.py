"""A data set in chunks: the rows of the files, in order, each once.

Oracle: `read_rows`, the reader of whole files, for rows, lines, numbers and errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunewright.data.chunks import Choice, chunks
from tunewright.data.files import DataFile, read_rows
from tunewright.data.formats.layout import layout
from tunewright.data.json_rows import Row
from tunewright.data.sources import Settled, Source
from tunewright.errors import TunewrightError


@pytest.mark.parametrize("text", [
    b'{"a": 1}\n{"a": 2}\n{"a": 3}', b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r\n',
    b'\n\n  {"a": 1}\n\xe3\x80\x80\n{"a": "\xe4\xbd\xa0"}\n\n',
    b'{"a": 1}\n' * 9 + b"\n" * 4, b"[1]\n", b"", b"\n \n", b'{"a": "\xff"}\n',
    b'{"a": 1}\n{"a"\n', '{"a": 1}'.encode("utf-16"), b'{"a": NaN}\n'])
@pytest.mark.parametrize("size", [1, 2, 100])
def test_rows_of_places_are_the_rows_of_the_file(tmp_path: Path, text: bytes, size: int) -> None:
    """Oracle: the reader of whole files, rows with their lines and numbers, and errors with theirs."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(text)
    file = DataFile(path, "jsonl")
    settled = Settled(Source("a", (file,), None), layout("text", {}), "")

    def in_chunks() -> Iterator[Row]:
        for number, chunk in enumerate(chunks(settled, Choice(None, None, 0), size)):
            assert chunk.number == number
            found = list(chunk.rows())
            assert len(found) == chunk.count <= size
            yield from found

    assert result(in_chunks()) == result(read_rows(file))


def result(rows: Iterator[Row]) -> list[Row] | str:
    try:
        return list(rows)
    except TunewrightError as error:
        return error.line()


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_a_choice_of_rows(tmp_path: Path, kind: str) -> None:
    """max_samples takes the first rows over all files; num_samples random ones, of which max_samples the first."""
    held = [{"a": number} for number in range(10)]
    files = []
    for name in ("x", "y"):
        path = tmp_path / f"{name}.{kind}"
        path.write_text(json.dumps(held) if kind == "json" else "".join(json.dumps(row) + "\n" for row in held))
        files.append(DataFile(path, kind))
    settled = Settled(Source("a", tuple(files), None), layout("text", {}), "")

    def chosen(*choice: int | None) -> list[tuple[str, int]]:
        found = [row for chunk in chunks(settled, Choice(*choice), 4) for row in chunk.rows()]  # type: ignore[arg-type]
        return [(Path(row.origin.file).stem, row.values["a"]) for row in found]

    everything = [(name, number) for name in "xy" for number in range(10)]
    for most in (1, 4, 5, 10, 13, 20, 30):
        assert chosen(None, most, 0) == everything[:most]
    assert sorted(chosen(20, None, 0)) == everything
    assert chosen(20, 7, 0) == chosen(20, None, 0)[:7]
    assert chosen(20, None, 1) != chosen(20, None, 0)


def test_how_much_is_read(tmp_path: Path) -> None:
    """By bytes for lines, by lines for arrays and tables, by rows for Parquet, over all files; unknown for an array in one line."""
    import pyarrow
    from pyarrow import parquet

    held = [{"a": number} for number in range(20)]
    lines = "".join(json.dumps(row) + "\n" for row in held)
    array = json.dumps(held, indent=0)
    for name, text in (("x.jsonl", lines), ("x.json", array), ("one.json", json.dumps(held)),
                       ("x.csv", "a\n" + "".join(f"{number}\n" for number in range(19)))):
        (tmp_path / name).write_text(text)
    parquet.write_table(pyarrow.Table.from_pylist(held), tmp_path / "x.parquet")

    def done(*names: str) -> list[float | None]:
        files = tuple(DataFile(tmp_path / name, Path(name).suffix[1:]) for name in names)
        return [chunk.done for chunk in chunks(Settled(Source("a", files, None), layout("text", {}), ""), Choice(None, None, 0), 10)]

    half = len("".join(lines.splitlines(keepends=True)[:10])) / len(lines)
    assert done("x.jsonl") == [half, 1.0]
    assert done("x.jsonl", "x.jsonl") == [half / 2, 0.5, 0.5 + half / 2, 1.0]
    assert done("x.parquet") == [0.5, 1.0]
    assert done("x.csv") == [11 / 20, 1.0]
    assert done("x.json") == [29 / 61, 59 / 61]
    assert done("one.json") == [None, None]

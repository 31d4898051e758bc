"""Rows found as bytes and read later are the rows that the readers of whole files give, with their places, in every type."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tunewright.data.files import DataFile, read_rows
from tunewright.data.streaming.raw import is_lines, parsed, raw_rows
from tunewright.errors import InputError

BLANKS = "\n \t\n\u3000\u2028\n\x1f\n\x0b\n"
LINES = BLANKS + '{"a": 1}\n' + BLANKS + '  {"a": "\u3000é"}\r\n\u00a0\n{"a": [1, {"b": null}]}'

FILES: dict[str, tuple[str, bytes]] = {
    "lines": ("jsonl", LINES.encode()),
    "a byte-order mark": ("jsonl", b"\xef\xbb\xbf" + b'{"a": 1}\n{"a": 2}\n'),
    "only a byte-order mark in the first line": ("jsonl", b"\xef\xbb\xbf\n" + b'{"a": 1}\n'),
    "packed lines": ("jsonl", LINES.encode()),
    "json of lines": ("json", b'{"a": 1}\n\n{"a": 2}\n'),
    "json array": ("json", b'[{"a": 1},\n {"a": 2}]'),
    "text": ("txt", ("one\n\n\u3000\n  two  \r\n\x1c\nthré" + "\n").encode()),
    "table": ("csv", b'a,b\n1,"x\ny"\n2,z\n'),
}


@pytest.mark.parametrize("name", FILES)
def test_raw_rows_are_rows(tmp_path: Path, name: str) -> None:
    """Oracle: `read_rows`, values and places."""
    kind, content = FILES[name]
    path = tmp_path / ("rows.jsonl.gz" if name.startswith("packed") else f"rows.{kind}")
    path.write_bytes(gzip.compress(content) if name.startswith("packed") else content)
    file = DataFile(path, kind)
    expected = list(read_rows(file))
    raws = list(raw_rows(file, 3, 1))
    assert [parsed(raw, file) for raw in raws] == expected and len(expected) >= 1
    assert {(raw.file, raw.turn) for raw in raws} == {(3, 1)}
    assert is_lines(file) == (name not in ("json array", "table"))
    if is_lines(file) and not name.startswith("packed"):
        bare = content.removeprefix(b"\xef\xbb\xbf")
        shift = len(content) - len(bare)
        assert all(isinstance(raw.content, bytes) and bare[max(0, raw.begin - shift) :].startswith(raw.content) for raw in raws)


def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"a": [1, 2, 3]}), tmp_path / "rows.parquet")
    file = DataFile(tmp_path / "rows.parquet", "parquet")
    assert [parsed(raw, file) for raw in raw_rows(file, 0, 0)] == list(read_rows(file))


BROKEN: dict[str, tuple[bytes, str]] = {
    "not json": (b'{"a": 1}\n{"a": }\n', "rows.jsonl:2:7: not valid JSON: expecting value"),
    "not an object": (b'{"a": 1}\n\n[1]\n', "rows.jsonl:3: a row is a JSON object, found array; a file that is one array ends in .json"),
    "not utf-8": (b'{"a": 1}\n{"a": "\xff"}\n', "rows.jsonl:2: byte 16 (0xff) is not UTF-8; save the file as UTF-8, for instance: "
                                               "iconv -f GB18030 -t UTF-8"),
    "nothing": (b"", "rows.jsonl: the file is empty; put rows into it or take it out of the data set"),
    "only blanks": (b"\n \n", "rows.jsonl: the file holds no rows; put rows into it or take it out of the data set"),
    "utf-16": (json.dumps({"a": 1}).encode("utf-16"), "rows.jsonl: the text is UTF-16, UTF-8 wanted"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_errors_name_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The same line as reading the whole file gives."""
    monkeypatch.chdir(tmp_path)
    content, message = BROKEN[name]
    Path("rows.jsonl").write_bytes(content)
    file = DataFile(Path("rows.jsonl"), "jsonl")
    with pytest.raises(InputError) as found:
        _ = [parsed(raw, file) for raw in raw_rows(file, 0, 0)]
    with pytest.raises(InputError) as theirs:
        list(read_rows(file))
    assert str(found.value) == str(theirs.value)
    assert message in str(found.value)

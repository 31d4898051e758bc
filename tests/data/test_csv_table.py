"""The table of the sft-json document: found in its sub-folder, converted beside itself, read. Oracles: rows written out by hand, and
the csv module of the standard library."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from tunewright.data.formats.fields import Converted
from tunewright.data.records import Conversation
from tunewright.data.sources import Source, converted, locate, outcomes, settle
from tunewright.errors import InputError

TEXT = 'category,human,assistant\nasp,"What, ""exactly""\nis it?",A page.\nasp,2+2?,四\n'
LINES = [
    {"conversation_id": 1, "category": "asp", "conversation": [{"human": 'What, "exactly"\nis it?', "assistant": "A page."}]},
    {"conversation_id": 2, "category": "asp", "conversation": [{"human": "2+2?", "assistant": "四"}]},
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def table(text: str = TEXT, name: str = "t.csv") -> Path:
    path = Path("data/csv") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def opened(name: str = "t.csv") -> tuple[Source, list[str]]:
    said: list[str] = []
    return converted(locate(name, Path("data")), Path("data"), said.append), said


def texts(source: Source) -> list[list[tuple[str, str]]]:
    found = []
    for _, outcome in outcomes(settle(source, "sft")):
        assert isinstance(outcome, Converted) and isinstance(outcome.record, Conversation)
        found.append([(message.role, message.content) for message in outcome.record.messages])
    return found


def test_conversion_keeps_every_cell() -> None:
    """The JSONL has each row as one conversation, with its category; and it trains on the same texts as the CSV itself."""
    path = table()
    source, said = opened()
    assert [file.path for file in source.files] == [Path("data/csv/t.jsonl")]
    assert said == ["data/csv/t.csv: 2 rows converted to data/csv/t.jsonl, which is read"]
    assert [json.loads(line) for line in Path("data/csv/t.jsonl").read_text(encoding="utf-8").splitlines()] == LINES
    assert texts(source) == texts(locate(str(path), Path("data"))) == [
        [("user", 'What, "exactly"\nis it?'), ("assistant", "A page.")], [("user", "2+2?"), ("assistant", "四")]]
    assert sorted(one.name for one in path.parent.iterdir()) == ["t.csv", "t.jsonl"]
    with path.open(newline="", encoding="utf-8") as file:
        assert [[row["human"], row["assistant"]] for row in csv.DictReader(file)] == [
            [turn["human"], turn["assistant"]] for line in LINES for turn in line["conversation"]]  # type: ignore[union-attr,index]


def test_only_when_missing_or_older() -> None:
    """A newer JSONL is read as it is; a newer table is converted again."""
    path = table()
    opened()
    beside = Path("data/csv/t.jsonl")
    first = beside.stat()
    _, said = opened()
    assert said == ["data/csv/t.jsonl: read in place of t.csv, from which it was made; remove it to have it made again"]
    assert (beside.stat().st_ino, beside.stat().st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    path.write_text(TEXT + "asp,new?,new.\n", encoding="utf-8")
    os.utime(path, ns=(first.st_atime_ns, first.st_mtime_ns + 1))
    source, said = opened()
    assert said == ["data/csv/t.csv: 3 rows converted to data/csv/t.jsonl, which is read"]
    assert len(texts(source)) == 3


def test_a_file_of_the_same_name_is_not_overwritten() -> None:
    """Somebody's own older JSONL stays as it is."""
    beside = table().with_suffix(".jsonl")
    beside.write_text('{"instruction": "a", "output": "b"}\n')
    os.utime(beside, ns=(0, 0))
    with pytest.raises(InputError, match=r"^data/csv/t\.jsonl: older than t\.csv and not made from it, so not overwritten; move it away"):
        opened()
    assert beside.read_text() == '{"instruction": "a", "output": "b"}\n'


def test_a_broken_table_leaves_no_jsonl() -> None:
    """A row with too many fields is told with its line; neither the JSONL nor a part of it is there."""
    path = table(TEXT + "a,b,c,d\n")
    with pytest.raises(InputError, match=r"^data/csv/t\.csv:5: 4 fields, but the header has 3"):
        opened()
    assert [one.name for one in path.parent.iterdir()] == ["t.csv"]


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table itself is read, and that is said. The refusal is made at the border of the process, as root may write anywhere."""
    path = table()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    source, said = opened()
    assert [file.path for file in source.files] == [path] and len(texts(source)) == 2
    assert said == ["data/csv/t.csv: read as it is, because t.jsonl cannot be written beside it (Permission denied)"]
    assert [one.name for one in path.parent.iterdir()] == ["t.csv"]


@pytest.mark.parametrize("name", ["data/t.csv", "data/csv/t.csv"])
def test_other_tables_are_read_where_they_are(name: str) -> None:
    """A CSV outside the sub-folder, or with other columns, is read as before."""
    path = Path(name)
    path.parent.mkdir(parents=True)
    path.write_text("human,assistant\na,b\n" if path.parent.name == "data" else "instruction,output\na,b\n")
    source, said = opened()
    assert [file.path for file in source.files] == [path] and said == []
    assert texts(source) == [[("user", "a"), ("assistant", "b")]]


def test_a_name_without_its_ending() -> None:
    """In the command-line reference the data folder holds JSON and CSV files, and data sets are called by their names."""
    Path("data").mkdir()
    Path("data/alpaca_zh.json").write_text('[{"instruction": "a", "output": "b"}]')
    assert [file.path for file in locate("alpaca_zh", Path("data")).files] == [Path("data/alpaca_zh.json")]
    Path("data/alpaca_zh.csv").write_text("instruction,output\nc,d\n")
    with pytest.raises(InputError, match=r"^data: dataset: `alpaca_zh` may be `alpaca_zh\.csv` or `alpaca_zh\.json`; write the name with "
    r"its"):
        locate("alpaca_zh", Path("data"))
    Path("data/dataset_info.json").write_text('{"alpaca_zh": {"file_name": "alpaca_zh.csv"}}')
    assert [file.path for file in locate("alpaca_zh", Path("data")).files] == [Path("data/alpaca_zh.csv")]

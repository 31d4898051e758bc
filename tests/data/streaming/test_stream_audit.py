"""The audit of a stream: each row once, whatever epochs and turns it is met in, also across interruptions. Oracle: worked by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunewright.data.audit import Note
from tunewright.data.records import Origin
from tunewright.data.streaming.audit import StreamAudit
from tunewright.errors import InputError


def noted(row: int, reason: str = "too long", *, file: str = "a.jsonl", dataset: str = "one") -> dict[str, Any]:
    return {"dataset": dataset, **Note(Origin(file, row, row + 1), "changed", reason).to_json()}


def lines(path: Path) -> list[tuple[str, str, int, str]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [(one["dataset"], one["file"], one["line"], one["reason"]) for one in found]


def test_a_row_is_written_down_once(tmp_path: Path) -> None:
    """Again in the same exchange, in a later one, or never before; two notes on one row are both kept; sets and files are told apart."""
    audit = StreamAudit(tmp_path / "audit", 0.5)
    audit.begin(0)
    assert audit.add([noted(9), noted(9), noted(9, "system prompt moved")]) == 2
    assert audit.add([noted(9), noted(9, "system prompt moved"), noted(8), noted(16)]) == 2
    assert audit.add([noted(9, file="b.jsonl"), noted(9, dataset="two"), noted(8)]) == 2
    assert lines(tmp_path / "audit") == [
        ("one", "a.jsonl", 10, "too long"), ("one", "a.jsonl", 10, "system prompt moved"), ("one", "a.jsonl", 9, "too long"),
        ("one", "a.jsonl", 17, "too long"), ("one", "b.jsonl", 10, "too long"), ("two", "a.jsonl", 10, "too long")]


def test_what_came_after_the_checkpoint_is_told_again(tmp_path: Path) -> None:
    first = StreamAudit(tmp_path / "audit", 0.5)
    first.begin(0)
    first.add([noted(3), noted(1), noted(2)])
    whole = (tmp_path / "audit").read_bytes()
    again = StreamAudit(tmp_path / "audit", 0.5)
    again.begin(1)
    assert again.add([noted(3)]) == 0
    assert again.add([noted(1), noted(2)]) == 2
    assert (tmp_path / "audit").read_bytes() == whole
    assert again.summary() == ["one: 3 changed: too long (first: a.jsonl:4)"]


def test_a_rank_that_does_not_write_keeps_account_too() -> None:
    """So that its refusal names the rows as the first rank's does."""
    audit = StreamAudit(None, 0.5)
    audit.begin(0)
    assert audit.add([{**noted(4), "action": "dropped"}]) == 1
    with pytest.raises(InputError, match=r"3 of the first 4 rows of the stream are unusable: a.jsonl:5 \(too long\)"):
        audit.check(4, 3, is_all=True)

"""Plausible mistakes of a new user, at the command line and in an editor. The answers are written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.badinputs.workspace import answer, assert_lines, tree
from tunewright.selftest.bad_lines import MISTAKES, READY


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, its code, no traceback, nothing written."""
    mistake = MISTAKES[name]
    Path("c.yaml").write_text(READY)
    if mistake.spoil is not None:
        mistake.spoil(here)
    before = tree(here)
    code, lines = answer(mistake.words.split(), capsys)
    assert_lines([line for line in lines if line.startswith("error") or "Traceback" in line], mistake.expected)
    assert code == mistake.code
    assert tree(here) == before


READABLE = {
    "windows line ends": READY.replace("\n", "\r\n").encode(),
    "byte-order mark": b"\xef\xbb\xbf" + READY.encode(),
    "quoted truth": READY.replace("use_cpu: true", "use_cpu: 'true'").encode(),
    "path with a space": READY.replace("rows.jsonl", "my rows.jsonl").encode(),
    "path with an end": READY.replace("path: model", "path: ./model/").encode(),
    "json": json.dumps({"model_name_or_path": "model", "dataset": "rows.jsonl", "output_dir": "out"}).encode(),
}


@pytest.mark.parametrize("name", READABLE)
def test_what_is_meant_is_read(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Forms that look wrong and are not: `check` passes."""
    Path("my rows.jsonl").write_text(Path("rows.jsonl").read_text())
    Path("e.json" if name == "json" else "e.yaml").write_bytes(READABLE[name])
    code, lines = answer(["check", "e.json" if name == "json" else "e.yaml"], capsys)
    assert (code, lines) == (0, [])


@pytest.mark.parametrize("verb", ["train", "check", "eval", "predict", "chat", "export", "preview", "explain", "convert", "env", "version",
    "schema"])
def test_help_after_a_verb(verb: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Help is help, whatever stands before it, and writes nothing."""
    before = tree(here)
    assert answer([verb, "--help"], capsys) == (0, [])
    assert tree(here) == before

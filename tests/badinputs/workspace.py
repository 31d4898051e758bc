"""A folder with a tiny model, rows and a run that would train; a case spoils one thing of it and says what the answer must be."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tunewright.cli import main

NATIVE = {
    "model_name_or_path": "model", "dataset": "rows.jsonl", "output_dir": "out", "use_cpu": "true", "max_steps": "1",
    "data_cache_dir": "'none'"}
"""A run that is ready, one setting a line: what a case adds stands on line 7."""
LLAMAFACTORY = {
    "stage": "sft", "do_train": "true", "finetuning_type": "lora", "model_name_or_path": "model", "dataset": "rows.jsonl",
    "output_dir": "out", "use_cpu": "true", "max_steps": "1"}
"""The same in the other vocabulary: what a case adds stands on line 9."""


@dataclass(frozen=True)
class Case:
    """One bad input.

    `settings` replace or follow those of a run that is ready (None takes one out); `spoil` damages files; `words` follow the
    configuration on the command line. `expected`: one entry for each line on stderr; its parts, separated by ` ... `, must stand
    in the line in that order, from its very beginning; what is between them is free.
    """

    name: str
    expected: tuple[str, ...]
    settings: Mapping[str, str | None] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    spoil: Callable[[Path], object] | None = None
    code: int = 2


def case(name: str, *expected: str, words: str = "", spoil: Callable[[Path], object] | None = None, code: int = 2,
         **settings: str | None) -> Case:
    """A Case in one line."""
    return Case(name, expected, settings, tuple(words.split()), spoil, code)


def written(base: Mapping[str, str], settings: Mapping[str, str | None]) -> str:
    """A YAML file of the settings."""
    return "".join(f"{key}: {value}\n" for key, value in {**base, **settings}.items() if value is not None)


def tree(folder: Path) -> dict[str, str]:
    """Every path below the folder with a digest of its content."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
            for path in sorted(folder.rglob("*"))}


def copy_workspace(original: Path, to: Path) -> Path:
    """A copy that a case may spoil."""
    shutil.copytree(original, to, dirs_exist_ok=True)
    return to


def answer(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Exit code and stderr of one command."""
    capsys.readouterr()
    code = main(words)
    return code, capsys.readouterr().err.splitlines()


def assert_lines(lines: list[str], expected: tuple[str, ...]) -> None:
    """Each line, after `error: `, has the parts of its expectation in order; there are no other lines, and no traceback."""
    assert not any("Traceback" in line or "internal error" in line for line in lines), lines
    for line, wanted in zip(lines, expected, strict=False):
        pattern = "error: " + ".*".join(re.escape(part.strip()) for part in wanted.split(" ... "))
        assert re.match(pattern, line), f"\n got: {line}\nwant: {wanted}"
    assert len(lines) == len(expected), lines


def assert_refused(folder: Path, words: list[str], case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """The command ends with the case's code and lines, and no file in the folder is other than before."""
    before = tree(folder)
    code, lines = answer(words, capsys)
    assert_lines(lines, case.expected)
    assert code == case.code
    assert tree(folder) == before

"""A folder with a tiny model, rows and a run that would train; how a command answers in it."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import pytest

from tunewright.cli import main
from tunewright.selftest.bad_case import Case


def tree(folder: Path) -> dict[str, str]:
    """Every path below the folder with a digest of its content; of a file of terabytes, which is a hole, its size."""
    return {str(path.relative_to(folder)): "folder" if not path.is_file() else str(path.stat().st_size) if path.stat().st_size > 2**32
            else hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*"))}


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

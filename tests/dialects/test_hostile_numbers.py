"""Numbers that Python reads and cannot print, or refuses to read, and nesting beyond its stack: refused in one line. Worked by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunewright.config.literals import read_literal
from tunewright.dialects.read import read_config
from tunewright.errors import InputError


@pytest.mark.parametrize(("name", "text", "said"), [
    ("c.json", '{"seed": ' + "9" * 5000 + "}", "c.json: holds a number of thousands of digits; write a number that a parameter can have"),
    ("c.yaml", "seed: 0x" + "f" * 5000, f"c.yaml:1: '0x{'f' * 55}...' is not a valid int; put a text in quotes"),
    ("c.yaml", "seed: " + "9" * 5000, f"c.yaml:1: '{'9' * 57}...' is not a valid int; put a text in quotes"),
])
def test_numbers_of_thousands_of_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(text)
    with pytest.raises(InputError) as caught:
        read_config([name])
    assert str(caught.value) == said


@pytest.mark.parametrize("text", ["[" * 100_000, "0x" + "f" * 5000, "[0x" + "f" * 5000 + "]"])
def test_literals_of_the_command_line(text: str) -> None:
    with pytest.raises(ValueError):
        read_literal(text)


def test_control_characters_of_a_name_do_not_reach_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key with an escape sequence and an end of line in it: one line, in Python's spelling."""
    monkeypatch.chdir(tmp_path)
    Path("c.json").write_text('{"a\\u001b[31m\\nb": 1}')
    with pytest.raises(InputError) as caught:
        read_config(["c.json"])
    assert str(caught.value).startswith("c.json:1: a\\x1b[31m\\nb: unknown key")


def test_a_word_that_no_file_can_be_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_config(["a" * 300])

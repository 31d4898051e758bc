"""The options that commands have besides the parameters of a run. Oracle: the words, sorted by hand."""

from __future__ import annotations

from pathlib import Path

from tunewright.commands import data_check, preview
from tunewright.commands.own_options import take_options


def test_options_are_taken_and_the_other_words_left() -> None:
    """Both ways to give a value, the last one counting; a value that looks like an option is a value."""
    found = take_options(["a.yaml", "--x", "1", "--on", "--y=2", "k=v", "--x", "--on", "--z"], "do", ("--x", "--y"), ("--on",))
    assert found == ({"--x": "--on", "--on": "", "--y": "2"}, ["a.yaml", "k=v", "--z"])


def test_other_spellings_are_of_options_and_never_of_values() -> None:
    """A page may be called `row=3`, and a report `--rows_only`."""
    wish, rest = preview.parse(["row=1", "--html", "row=3", "c.yaml"])
    assert (wish.rows, wish.html, rest) == ("1", Path("row=3"), ["c.yaml"])
    check, rest = data_check.parse(["--rows_only", "--json", "--rows_only", "d.jsonl"])
    assert (check.rows_only, check.json, rest) == (True, Path("--rows_only"), ["d.jsonl"])

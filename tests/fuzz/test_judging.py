"""The judge of fuzzing finds what it is there to find: planted readers, each of which does one thing wrong."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest

from fuzz.edits import EDITS, Source, edited
from fuzz.engines import Tally, with_hypothesis
from fuzz.judging import Finding, judged, smaller
from fuzz.target import ROOT, Target
from tunewright.errors import ConfigError, InputError, Problem


def good(content: bytes) -> None:
    if len(content) > 3:
        raise InputError("too long\nfor a line")
    if len(content) > 2:
        raise ConfigError([Problem("one"), Problem("two")])


def wrong(content: bytes) -> None:
    if b"b" in content:
        raise KeyError("b")


def slow(content: bytes) -> None:
    end = time.process_time() + 0.02
    while time.process_time() < end:
        pass


def several(content: bytes) -> None:
    error = InputError("one")
    error.args = ("one\ntwo",)
    raise error


@pytest.mark.parametrize(("one", "content", "kind"), [
    (good, b"", None), (good, b"abc", None), (good, b"abcd", None), (wrong, b"a", None), (wrong, b"ab", "KeyError"), (slow, b"", "slow"),
    (several, b"", "several lines")])
def test_what_a_reader_may_not_do(one, content: bytes, kind: str | None) -> None:  # type: ignore[no-untyped-def]
    found = judged(one, content, cpu_s=0.01)
    assert (found.kind if found else None) == kind


def test_memory_is_limited() -> None:
    """In a process of its own, because the limit stays."""
    code = ("from fuzz.judging import judged, limit_memory\nlimit_memory()\n"
            "print(judged(lambda content: print(len(bytearray(600 * 2**20))), b'').kind, judged(lambda _: bytearray(2**20), b''))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}, capture_output=True,
                          text=True, check=True)
    assert done.stdout == "memory None\n"


def test_an_input_is_made_smaller() -> None:
    """`ab` in 1,000 letters: only the b matters."""
    found = judged(wrong, b"a" * 500 + b"b" + b"a" * 499)
    assert found is not None and smaller(wrong, b"a" * 500 + b"b" + b"a" * 499, found) == b"b"


def test_edits_are_drawn_from_their_seed_alone() -> None:
    source = Source([b'{"a": [1, {"b": "c"}]}\n{"d": 2}', b"- x: 1\n"], [b"word"])
    found = [edited(source.seeds[0], source, random.Random(seed)) for seed in range(300)]
    assert found == [edited(source.seeds[0], source, random.Random(seed)) for seed in range(300)]
    assert len(set(found)) > 250 and all(edit(b"", source, random.Random(1)) is not None for edit in EDITS)


def test_hypothesis_finds_a_planted_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that cannot take `word` between two bytes, which only edits with the words of the format hit on."""
    def one(content: bytes) -> None:
        if b"word" in content[1:-1]:
            raise IndexError("planted")

    monkeypatch.setattr("fuzz.engines._keep", lambda target, content, found: f"{target}: {content!r}")
    tally = with_hypothesis(Target("planted", "", one, lambda: [b"0123456789"], [b"word"]), 4.0, 0, limited=False)
    assert tally.executions > 20
    assert [(entry["kind"], entry["input"]) for entry in tally.findings.values()] == [("IndexError", "planted: b'0word9'")] or (
        [entry["kind"] for entry in tally.findings.values()] == ["IndexError"])


def test_one_cause_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzz.engines._keep", lambda target, content, found: content.decode())
    tally = Tally(Target("planted", "", wrong, lambda: []))
    for content in (b"ab", b"b", b"xbx"):
        tally.attempt(content)
    assert tally.executions == 3 and len(tally.findings) == 1
    assert Finding("KeyError", "x", "") .key == ("KeyError", "x")

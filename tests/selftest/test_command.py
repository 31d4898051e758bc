"""`tunewright selftest`: what it is asked for, what it says and records, and the page that is made of a record.

Oracle: checks with known cases.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunewright.errors import InputError, UsageError
from tunewright.registry import Entry, Registry
from tunewright.selftest import command, page, record
from tunewright.selftest.check import CHECKS, Check, Outcome, Size, Tools
from tunewright.selftest.record import Result

RUN = "2026-01-02T03:04:05Z"


def cases(group: str, size: Size, tools: Tools) -> Iterator[Outcome]:
    """Two of a sample, four in full; of the group `bad` the second fails, and the group `broken` raises after one."""
    for number in range(2 if size is Size.SAMPLE else 4):
        yield Outcome(group, str(number), not (group == "bad" and number == 1), "it is not")
        if group == "broken":
            raise KeyError("lost")


def lacking(group: str) -> str | None:
    return "needs a moon" if group == "moon" else None


CHECK = Check("known", "What is known is so.", 8, lambda size: ("good", "bad", "broken", "moon"), cases, lacking)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """One check, run in this process."""
    registry = Registry("check", (Entry("known", f"{__name__}:CHECK", "Of known cases."),))
    monkeypatch.setattr(registry, "load", lambda name: CHECK)
    for module in (command, page):
        monkeypatch.setattr(module, "CHECKS", registry)


def test_what_the_cases_of_a_group_come_to(known: None) -> None:
    """An error is a case that did not pass, after those that did."""
    good, bad, broken = (command.ran_group("known", group, Size.SAMPLE, 0) for group in ("good", "bad", "broken"))
    assert (good.cases, good.passed, good.failed) == (2, 2, ())
    assert (bad.cases, bad.passed, bad.failed) == (2, 1, (("1", "it is not"),))
    assert (broken.cases, broken.passed, broken.failed) == (2, 1, (("after 1 cases", "KeyError: 'lost'"),))


def test_a_line_for_each_check_and_for_what_did_not_pass(known: None) -> None:
    results = [Result("known", "good", "sample", 2, 2, 1.4), Result("known", "bad", "sample", 2, 1, 1.0, (("1", "it is not"),)),
               Result("known", "moon", "sample", left_out="needs a moon")]
    assert command.line("known", results) == "known  3 of 4 passed  2 CPU s\n  bad: 1: it is not\n  moon: left out: needs a moon\n"


def test_what_is_asked_for() -> None:
    wish = command.read_wish(["--only", "kills,damage", "--jobs=3", "--full", "--seed", "7", "--record", "a/b.jsonl"])
    assert wish == command.Wish(("kills", "damage"), Size.FULL, 3, 7, Path("a/b.jsonl"), False)
    assert command.read_wish([]).names == CHECKS.names() and command.read_wish([]).size is Size.SAMPLE


@pytest.mark.parametrize(("words", "said"), [
    (["--only", "kill"], "did you mean kills"), (["--jobs", "0"], "--jobs must be a whole number of at least 1, not '0'"),
    (["--seed=-1"], "--seed must be"), (["kills"], "does not know kills")])
def test_what_cannot_be_understood(words: list[str], said: str) -> None:
    with pytest.raises((InputError, UsageError), match=said):
        command.read_wish(words)


def test_the_list_and_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(CHECKS.names())
    assert command.run(["--help"]) == 0 and capsys.readouterr().out.startswith("usage: tunewright selftest")


def test_the_page_shows_the_newest_whole_run(known: None, tmp_path: Path) -> None:
    """A sample counts only where there is no whole run; a later run takes the place of an earlier one."""
    file = tmp_path / "record.jsonl"
    record.append(file, RUN, [Result("known", "good", Size.SAMPLE, 2, 2)])
    assert "| What is known is so. | 2 of 2 (a sample) | `tunewright selftest --full --only known` |" in page.page(file)
    record.append(file, RUN, [Result("known", "good", Size.FULL, 4, 3, 60.0)])
    record.append(file, "2026-02-02T03:04:05Z", [Result("known", "good", Size.FULL, 1234, 1233, 61.0, (("7", "it is not"),)),
                                                 Result("known", "moon", Size.FULL, left_out="needs a moon")])
    record.append(file, "2026-03-02T03:04:05Z", [Result("known", "good", Size.SAMPLE, 2, 2)])
    text = page.page(file, "## More\n")
    assert "| 1,233 of 1,234 |" in text and "Run of 2026-02-02; 61 CPU seconds" in text
    assert "| good | 1,234 | 1,233 |\n| moon | | left out: needs a moon |\n" in text and "- good: 7: it is not\n" in text
    assert text.endswith("## More\n")


def test_a_record_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "record.jsonl").write_text(json.dumps({"run": RUN}) + "\n")
    with pytest.raises(InputError, match=r"record\.jsonl:1: not a line of a record"):
        record.newest(tmp_path / "record.jsonl")

"""That a wrong answer to bad input is seen; all cases run in one process in tests/badinputs.

Oracle: the answers in the tables, written by hand; the judge's own faults are planted here.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tunewright.selftest import bad_input
from tunewright.selftest.bad_case import case
from tunewright.selftest.check import Size
from tunewright.selftest.forked import Ended

GOOD = Ended(2, "", "note: x\nerror: c.yaml:7: lora_rank: 0 is out of range; write an integer >= 1\n", ("open c.yaml",), 0.4)
CASE = case("rank", "c.yaml:7: lora_rank: 0 is out of range ... integer")


def test_there_are_enough_cases() -> None:
    """More than 400, each with a name of its own in its group."""
    names = [[name for name, _, _ in bad_input.cases(group)] for group in bad_input.groups(Size.FULL)]
    assert all(len(group) == len(set(group)) for group in names)
    assert sum(map(len, names)) >= bad_input.CHECK.wanted > 400


@pytest.mark.parametrize("ended", [
    replace(GOOD, code=1), replace(GOOD, err=""), replace(GOOD, err=GOOD.err * 2), replace(GOOD, err=f"Traceback (most recent\n{GOOD.err}"),
    replace(GOOD, err="error: lora_rank: 0 is out of range; write an integer >= 1\n"), replace(GOOD, cpu_s=2.1),
    replace(GOOD, err=GOOD.err.replace("; write an integer >= 1", "")), replace(GOOD, events=("open /x/site-packages/torch/__init__.py",))])
def test_a_wrong_answer_is_seen(ended: Ended) -> None:
    """Another code, no line, two lines, a traceback, no place, too late, no mend, torch: each is a fault; the answer itself is none."""
    assert list(bad_input.faults_of(GOOD, CASE)) == []
    assert len(list(bad_input.faults_of(ended, CASE))) >= 1

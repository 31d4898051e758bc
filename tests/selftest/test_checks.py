"""A sample of each check, as `tunewright selftest` runs it, its figures printed at the end of the tests; and the record of all cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunewright.selftest.check import CHECKS, Check, Size, Tools
from tunewright.selftest.killing import cpu_seconds, server
from tunewright.selftest.record import newest

MINUTES = {"kills: LoRA with dropout": 2, "kills: full": 2, "kills: LoRA on two ranks": 2, "exactness: some set-ups": 1}
"""Of the groups that take the longest: they are begun first."""
LEAST = {"kills: LoRA with dropout": 150, "kills: full": 150, "kills: LoRA on two ranks": 100, "exactness: some set-ups": 16,
         "equivalence: every stage": 60, "changes: parameters": 280, "damage: LoRA with dropout": 150}
"""Cases of the largest groups."""


def groups() -> list[Any]:
    """Every group of every check's sample."""
    return [pytest.param(name, group, id=f"{name}-{group}", marks=pytest.mark.slow(minutes=MINUTES.get(f"{name}: {group}", 0.5)))
            for name in CHECKS.names() for group in CHECKS.load(name).groups(Size.SAMPLE)]


@pytest.mark.effect("max_nonfinite_steps")
@pytest.mark.parametrize(("name", "group"), groups())
def test_sample(name: str, group: str, tmp_path: Path, record_property: Any) -> None:
    check: Check = CHECKS.load(name)
    lacking = check.missing(group)
    if lacking is not None:
        pytest.skip(lacking)
    before = cpu_seconds()
    outcomes = list(check.run(group, Size.SAMPLE, Tools(tmp_path, server)))
    record_property("selftest", (name, len(outcomes), sum(one.passed for one in outcomes), cpu_seconds() - before))
    assert [one for one in outcomes if not one.passed] == []
    assert len(outcomes) >= LEAST.get(f"{name}: {group}", 1)


def test_checks_bear_the_names_that_they_are_registered_under() -> None:
    assert [CHECKS.load(name).name for name in CHECKS.names()] == list(CHECKS.names())


def test_the_record_shows_every_check_whole() -> None:
    """docs/reliability.jsonl, from which the page is made: as many cases as the check has at the least, each passed."""
    known = newest(Path(__file__).parents[2] / "docs" / "reliability.jsonl")
    for name in CHECKS.names():
        _, results = known[name]
        assert {one.size for one in results} == {Size.FULL}, name
        assert sum(one.passed for one in results) == sum(one.cases for one in results) >= CHECKS.load(name).wanted, name

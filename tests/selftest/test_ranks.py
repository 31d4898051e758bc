"""Which cases of lost ranks there are."""

from __future__ import annotations

from tunewright.selftest.check import Size
from tunewright.selftest.ranks import CHECK, chosen


def test_every_rank_has_every_fault_at_every_place() -> None:
    cases = [case for group in CHECK.groups(Size.FULL) for case in chosen(group, Size.FULL)]
    assert len(set(cases)) == len(cases) == CHECK.wanted == 3 * 4 * 3

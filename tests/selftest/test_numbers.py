"""Which cases of steps that are not finite there are."""

from __future__ import annotations

from tunewright.selftest.check import Size
from tunewright.selftest.numbers import CHECK, ENDS, Bad, chosen


def test_which_step_ends_a_run() -> None:
    assert Bad((8,), limit=1).stops_at == 8
    assert Bad((4, 5, 7, 8, 9)).stops_at == 9
    assert Bad((4, 5, 7, 8)).stops_at is None


def test_every_case_that_is_to_end_does() -> None:
    assert all(one.stops_at is not None for one in ENDS.values())
    assert CHECK.wanted == sum(len(chosen(group, Size.FULL)) for group in CHECK.groups(Size.FULL)) >= 24

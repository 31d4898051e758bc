"""Which signals are drawn."""

from __future__ import annotations

from tunewright.selftest.check import Size
from tunewright.selftest.signals import CHECK, draws


def test_what_is_drawn() -> None:
    """Over 100, with skews up to 10 s in both orders, through the launcher too, of every signal; the same for a seed."""
    every = draws(Size.FULL, 0)
    assert every == draws(Size.FULL, 0) != draws(Size.FULL, 1)
    assert len(every) == CHECK.wanted > 100
    assert max(one.skew_s for one in every) > 9
    assert {one.first for one in every} == {-1, 0, 1}
    assert len({one.number for one in every}) == 3
    assert {one.is_full for one in every} == {True, False}
    assert sum(one.again_s is not None for one in every) == 10

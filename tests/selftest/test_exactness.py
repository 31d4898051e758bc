"""Which set-ups there are to be cut. Oracle: pairs counted by hand, and the optimizers that are declared."""

from __future__ import annotations

from itertools import combinations

from tunewright.config.optimizer_names import OPTIMIZERS
from tunewright.selftest import exactness, setups
from tunewright.selftest.check import Size
from tunewright.selftest.pairwise import Row, cover


def test_every_two_levels_meet() -> None:
    """Three dimensions by hand: b2 never goes with c1; the other pairs are in some row, and no row is refused."""
    def accepts(row: Row) -> bool:
        return (row["b"], row["c"]) != ("b2", "c1")

    found = cover({"a": ["a0", "a1"], "b": ["b0", "b1", "b2"], "c": ["c0", "c1"]}, accepts)
    assert found.refused == {frozenset({("b", "b2"), ("c", "c1")})}
    pairs = {(row[one], row[other]) for row in found.rows for one, other in combinations("abc", 2)}
    wanted = {(f"a{one}", f"b{other}") for one in range(2) for other in range(3)} | {(f"a{one}", f"c{other}") for one in range(2)
              for other in range(2)} | {("b0", "c0"), ("b0", "c1"), ("b1", "c0"), ("b1", "c1"), ("b2", "c0")}
    assert pairs == wanted
    assert all(map(accepts, found.rows))


def test_the_set_ups() -> None:
    """As many as the page says; every optimizer; every two levels that may meet; the groups have each of them once."""
    found = setups.every()
    assert len(found) == exactness.CHECK.wanted >= 60
    assert {changes.get("optim") for changes in found.values()} >= set(OPTIMIZERS)
    covered = setups.combined()
    rows = [set(row.items()) for row in covered.rows]
    for one, other in combinations(setups.DIMENSIONS, 2):
        for pair in (frozenset({(one, level), (other, its)}) for level in setups.DIMENSIONS[one] for its in setups.DIMENSIONS[other]):
            assert pair in covered.refused or any(pair <= row for row in rows), pair
    assert len(covered.refused) <= 24
    parts = [name for group in exactness.groups(Size.FULL) for name in exactness.chosen(group, Size.FULL)]
    assert sorted(parts) == sorted(found)

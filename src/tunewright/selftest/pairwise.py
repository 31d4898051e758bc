"""Combinations of levels such that every two levels of different dimensions meet in one of them. Standard library only."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

Row = Mapping[str, str]
"""Dimension -> level."""
Meeting = frozenset[tuple[str, str]]
"""Two levels of different dimensions."""
TRIES = 40


class Covered(NamedTuple):
    """The rows; the meetings that are not in them, because `accepts` refuses them even with the first level of all other dimensions."""

    rows: tuple[Row, ...]
    refused: frozenset[Meeting]


def meetings(row: Row) -> set[Meeting]:
    """Every two levels that meet in a row."""
    return {frozenset(pair) for pair in combinations(row.items(), 2)}


def cover(dimensions: Mapping[str, Sequence[str]], accepts: Callable[[Row], bool], seed: int = 0) -> Covered:
    """Rows of accepted combinations, drawn by the seed, until every meeting is in one that can be. The first level of each dimension must
    go with every level of the others that goes with anything."""
    first = {name: levels[0] for name, levels in dimensions.items()}
    every = sorted({pair for one, other in combinations(dimensions, 2) for level in dimensions[one] for its in dimensions[other]
                    for pair in [((one, level), (other, its))]})
    refused = {frozenset(pair) for pair in every if not accepts({**first, **dict(pair)})}
    rows: list[Row] = []
    open_ones = [frozenset(pair) for pair in every if frozenset(pair) not in refused]
    chance = random.Random(seed)
    left = set(open_ones)
    for wanted in open_ones:
        if wanted not in left:
            continue
        row = next(row for row in _tries(dimensions, wanted, left, refused, chance) if accepts(row))
        rows.append(row)
        left -= meetings(row)
    return Covered(tuple(rows), frozenset(refused))


def _tries(
    dimensions: Mapping[str, Sequence[str]], wanted: Meeting, left: set[Meeting], refused: set[Meeting], chance: random.Random,
) -> Iterable[Row]:
    """Rows with the wanted meeting, those first in which the most that are left meet; at the end the two with nothing but first levels."""
    drawn = [_drawn(dimensions, dict(wanted), left, refused, chance) for _ in range(TRIES)]
    yield from sorted(drawn, key=lambda row: -len(meetings(row) & left))
    yield {**{name: levels[0] for name, levels in dimensions.items()}, **dict(wanted)}


def _drawn(
    dimensions: Mapping[str, Sequence[str]], row: dict[str, str], left: set[Meeting], refused: set[Meeting], chance: random.Random,
) -> Row:
    """A row that is filled up in a random order, each dimension with a level by which the most that are left meet."""
    for name in chance.sample(sorted(set(dimensions) - set(row)), len(dimensions) - len(row)):
        met = {level: [frozenset(((name, level), one)) for one in row.items()] for level in dimensions[name]}
        possible = [level for level, pairs in met.items() if refused.isdisjoint(pairs)] or [dimensions[name][0]]
        chance.shuffle(possible)
        row[name] = max(possible, key=lambda level: len(left.intersection(met[level])))
    return {name: row[name] for name in dimensions}

"""The columns of the rows that prompts come from, for what scores answers: read again from the files, once, and only those that are asked
for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunewright.data.sources import Settled, rows

if TYPE_CHECKING:
    from tunewright.data.records import Origin


@dataclass(frozen=True, slots=True)
class Columns:
    """`names`: of all columns, in the order in which they appear; `values`: of each row by file and place in it."""

    names: tuple[str, ...]
    values: Mapping[tuple[str, int], Mapping[str, Any]] = field(repr=False)

    def of(self, origins: Iterable[Origin]) -> dict[str, list[Any]]:
        """Each column of these rows; None where a row does not have it."""
        found = [self.values.get((origin.file, origin.index), {}) for origin in origins]
        return {name: [row.get(name) for row in found] for name in self.names}


def column_names(sources: Sequence[Settled]) -> tuple[str, ...]:
    """The columns of the first rows of the data sets."""
    return tuple(dict.fromkeys(name for settled in sources for row in _first(settled) for name in row))


def read_columns(sources: Sequence[Settled], wanted: Collection[str] | None) -> Columns:
    """The columns `wanted`, or all of them, of every row of the data sets."""
    values: dict[tuple[str, int], dict[str, Any]] = {}
    names: dict[str, None] = {}
    for settled in sources:
        for row in rows(settled.source):
            kept = {name: value for name, value in row.values.items() if wanted is None or name in wanted}
            values[row.origin.file, row.origin.index] = kept
            names |= dict.fromkeys(kept)
    return Columns(tuple(names), values)


def _first(settled: Settled) -> Iterable[Mapping[str, Any]]:
    row = next(iter(rows(settled.source)), None)
    return [] if row is None else [row.values]

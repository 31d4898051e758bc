"""Checks that look at one row at a time, and what counts them. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tunewright.data.doctor.finding import Finding, Level, Sightings, of_rows
from tunewright.data.doctor.seen import Seen


@dataclass(frozen=True, slots=True)
class RowCheck:
    """One check: `look` returns what is wrong with a row ("" where `what` says it all) or None; `what` follows "3 of 10 rows"."""

    id: str
    level: Level
    what: str
    mend: str
    look: Callable[[Seen], str | None]


class RowChecks:
    """Asks every check about every row."""

    def __init__(self, checks: Sequence[RowCheck]) -> None:
        self._checks = [(number, check.look) for number, check in enumerate(checks)]
        self._table = tuple(checks)
        self._found: dict[tuple[str, int], Sightings] = {}

    def observe(self, seen: Seen) -> None:
        """Look at one row."""
        for number, look in self._checks:
            detail = look(seen)
            if detail is not None:
                self._found.setdefault((seen.dataset, number), Sightings()).add(seen.origin, detail)

    def findings(self, rows: Mapping[str, int]) -> list[Finding]:
        """One finding per data set and check; `rows` are the rows read of each set."""
        found = sorted(self._found.items(), key=lambda one: one[0][1])
        return [self._finding(dataset, self._table[number], sightings, rows) for (dataset, number), sightings in found]

    @staticmethod
    def _finding(dataset: str, check: RowCheck, seen: Sightings, rows: Mapping[str, int]) -> Finding:
        what = f"{of_rows(seen.count, rows[dataset])} {check.what}"
        return Finding(check.id, check.level, dataset, what, check.mend, seen.count, tuple(seen.places))

"""What a check has found, as a value. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from tunewright.data.records import Origin

Level = Literal["error", "warning", "note"]
"""error: a run would stop; warning: rows are lost, or the model may learn what is not meant; note: worth knowing."""

LEVELS: Final[tuple[Level, ...]] = ("error", "warning", "note")
SHOWN_PLACES: Final = 20
_LONGEST_DETAIL: Final = 160


class Place(NamedTuple):
    """A row, and what it was in this one."""

    origin: Origin
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.origin} ({self.detail})" if self.detail else str(self.origin)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check says of one data set. `what` completes "`count` of `rows` rows ..." or is a sentence; `places` are the first ones."""

    check: str
    level: Level
    dataset: str
    what: str
    mend: str
    count: int
    places: tuple[Place, ...] = ()

    def line(self) -> str:
        """One line: the set, what was found, its first place, what to do."""
        first = f" (first: {self.places[0]})" if self.places else ""
        return f"{self.level}: {self.dataset}: {self.what}{first}; {self.mend} [{self.check}]"

    def to_json(self) -> dict[str, Any]:
        """By name; places as `where` and `detail`."""
        places = [{"where": str(one.origin), "detail": one.detail} for one in self.places]
        return {"check": self.check, "level": self.level, "dataset": self.dataset, "what": self.what, "mend": self.mend,
                "count": self.count, "places": places}


@dataclass
class Sightings:
    """How often something was seen, and the first places."""

    count: int = 0
    places: list[Place] = field(default_factory=list)

    def add(self, origin: Origin, detail: str = "") -> None:
        """Count one; only the first are kept, with details cut to a readable length."""
        self.count += 1
        if len(self.places) < SHOWN_PLACES:
            short = detail if len(detail) <= _LONGEST_DETAIL else detail[: _LONGEST_DETAIL - 1] + "…"
            self.places.append(Place(origin, short))


def of_rows(count: int, rows: int) -> str:
    """`3 of 10 rows`."""
    return f"{count} of {rows} rows" if rows != 1 else f"{count} of 1 row"

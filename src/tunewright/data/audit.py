"""What became of every row: which were dropped or changed, where they stand and why. Standard library only."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunewright.data.records import Origin
from tunewright.errors import InputError

Action = Literal["dropped", "changed"]

_NAMED_ROWS = 5


@dataclass(frozen=True, slots=True)
class Note:
    """One row that was dropped or changed; `reason` is the same for all rows of its kind, `detail` is about this one."""

    origin: Origin
    action: Action
    reason: str
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """File, line (or null), 1-based row, action, reason, detail."""
        return {"file": self.origin.file, "line": self.origin.line, "row": self.origin.index + 1, "action": self.action,
                "reason": self.reason, "detail": self.detail}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Note:
        """The inverse of `to_json`."""
        origin = Origin(fields["file"], fields["row"] - 1, fields["line"])
        return cls(origin, fields["action"], fields["reason"], fields["detail"])


@dataclass(frozen=True, slots=True)
class SetAudit:
    """One data set: how many rows were read, and the notes in the order of the rows."""

    name: str
    rows: int
    notes: tuple[Note, ...]

    @property
    def dropped(self) -> int:
        """Rows left out."""
        return sum(note.action == "dropped" for note in self.notes)

    def summary(self) -> list[str]:
        """One line per data set, and one per reason with its first place."""
        counts = Counter((note.action, note.reason) for note in self.notes)
        first = {(note.action, note.reason): note.origin for note in reversed(self.notes)}
        lines = [f"{self.name}: {self.rows - self.dropped} of {self.rows} rows used"]
        return lines + [f"  {count} {action}: {reason} (first: {first[action, reason]})"
                        for (action, reason), count in counts.most_common()]

    def check(self, max_dropped_fraction: float) -> None:
        """Raise `InputError` if no row is left, or if more than the allowed part was dropped."""
        dropped = [note for note in self.notes if note.action == "dropped"]
        if not dropped or (len(dropped) < self.rows and len(dropped) <= max_dropped_fraction * self.rows):
            return
        more = f" and {len(dropped) - _NAMED_ROWS} more" if len(dropped) > _NAMED_ROWS else ""
        is_cut = all("cutoff_len" in note.detail for note in dropped)
        mend = "raise cutoff_len" if is_cut else "mend the rows"
        if len(dropped) < self.rows:
            mend += f" or raise max_dropped_fraction (now {max_dropped_fraction:g})"
        found = f"{_what(dropped)} in {len(dropped)} of {self.rows} rows"
        raise InputError(f"{found}: {_named(dropped[:_NAMED_ROWS])}{more}", where=self.name, mend=mend)


@dataclass(frozen=True, slots=True)
class Audit:
    """All data sets of a run."""

    sets: tuple[SetAudit, ...]

    def summary(self) -> list[str]:
        """Lines to print."""
        return [line for one in self.sets for line in one.summary()]

    def write(self, path: Path) -> None:
        """Write one JSON object per dropped or changed row."""
        with path.open("w", encoding="utf-8") as file:
            for one in self.sets:
                for note in one.notes:
                    file.write(json.dumps({"dataset": one.name, **note.to_json()}, ensure_ascii=False) + "\n")


def notes_to_lines(notes: Iterable[Note]) -> str:
    """JSON lines for the token cache."""
    return "".join(json.dumps(note.to_json(), ensure_ascii=False) + "\n" for note in notes)


def notes_from_lines(text: str) -> tuple[Note, ...]:
    """The inverse of `notes_to_lines`."""
    return tuple(Note.from_json(json.loads(line)) for line in text.split("\n") if line)


def _what(dropped: list[Note]) -> str:
    reasons = sorted({note.reason for note in dropped})
    return reasons[0] if len(reasons) == 1 else f"unusable ({', '.join(reasons)})"


def _named(notes: list[Note]) -> str:
    """`file:line (detail)` of each; a detail that all share is said once, before them."""
    details = [" ".join(note.detail.split()) for note in notes]
    if len(set(details)) == 1:
        places = ", ".join(str(note.origin) for note in notes)
        return f"{details[0]}: {places}" if details[0] else places
    return ", ".join(f"{note.origin} ({detail})" if detail else str(note.origin) for note,
                     detail in zip(notes, details, strict=True))

"""What became of every row: which were dropped or changed, where they stand and why. Standard library only."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from tunewright.data.records import Origin
from tunewright.errors import InputError

if TYPE_CHECKING:
    from tunewright.data.spread import Spread

Action = Literal["dropped", "changed"]

SPLIT: Final = "split"
"""How the reason of a note ends whose row became several."""

_NAMED_ROWS = 5


@dataclass(frozen=True, slots=True)
class Note:
    """One row that was dropped or changed; `reason` is the same for all rows of its kind, `detail` is about this one.

    `tokens_lost`: tokens of it that are not trained on because it was too long; None if that is not what was wrong with it.
    """

    origin: Origin
    action: Action
    reason: str
    detail: str = ""
    tokens_lost: int | None = None

    def to_json(self) -> dict[str, Any]:
        """File, line (or null), 1-based row, action, reason, detail, and the tokens lost if the row was too long."""
        lost = {} if self.tokens_lost is None else {"tokens_lost": self.tokens_lost}
        return {"file": self.origin.file, "line": self.origin.line, "row": self.origin.index + 1, "action": self.action,
                "reason": self.reason, "detail": self.detail, **lost}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Note:
        """The inverse of `to_json`."""
        origin = Origin(fields["file"], fields["row"] - 1, fields["line"])
        return cls(origin, fields["action"], fields["reason"], fields["detail"], fields.get("tokens_lost"))


@dataclass
class Tally:
    """The notes of one data set, counted as they come: reasons, the first place of each, and the first rows that were dropped."""

    name: str
    rows: int = 0
    counts: Counter[tuple[Action, str]] = field(default_factory=Counter)
    first: dict[tuple[Action, str], Origin] = field(default_factory=dict)
    named: list[Note] = field(default_factory=list)
    lost: Counter[tuple[Action, str]] = field(default_factory=Counter)
    too_long: Counter[str] = field(default_factory=Counter)
    is_cut: bool = True

    def add(self, note: Note) -> None:
        """Count one note."""
        kind = (note.action, note.reason)
        self.counts[kind] += 1
        self.first.setdefault(kind, note.origin)
        if note.tokens_lost is not None:
            self.lost[kind] += note.tokens_lost
            self.too_long["dropped" if note.action == "dropped" else SPLIT if note.reason.endswith(SPLIT) else "cut"] += 1
        if note.action == "dropped":
            self.is_cut = self.is_cut and note.tokens_lost is not None
            if len(self.named) < _NAMED_ROWS:
                self.named.append(note)

    def number(self, action: Action) -> int:
        """How often that was done."""
        return sum(count for (done, _), count in self.counts.items() if done == action)

    def summary(self) -> list[str]:
        """One line for the set, and one per reason with its first place."""
        lines = [f"{self.name}: {self.rows - self.number('dropped')} of {self.rows} rows used"]
        return lines + [f"  {count} {action}: {reason}{self._lost(action, reason)} (first: {self.first[action, reason]})"
                        for (action, reason), count in self.counts.most_common()]

    def check(self, max_dropped_fraction: float) -> None:
        """Raise `InputError` if no row is left, or if more than the allowed part was dropped."""
        dropped = self.number("dropped")
        if not dropped or (dropped < self.rows and dropped <= max_dropped_fraction * self.rows):
            return
        more = f" and {dropped - len(self.named)} more" if dropped > len(self.named) else ""
        mend = "raise cutoff_len" if self.is_cut else "mend the rows and raise cutoff_len" if self.too_long["dropped"] else "mend the rows"
        if dropped < self.rows:
            mend += f" or raise max_dropped_fraction (now {max_dropped_fraction:g})"
        found = f"{self._what()} in {dropped} of {self.rows} rows"
        raise InputError(f"{found}: {_named(self.named)}{more}", where=self.name, mend=mend)

    def to_json(self) -> dict[str, Any]:
        """Rows read, kept and dropped, changes, every reason with its count and first place, and what became of rows that were too long:
        how many were cut, split and dropped, and the tokens lost by that."""
        dropped = self.number("dropped")
        reasons = [{"action": action, "reason": reason, "count": count, "first": str(self.first[action, reason])}
                   for (action, reason), count in self.counts.most_common()]
        return {"dataset": self.name, "rows": self.rows, "kept": self.rows - dropped, "dropped": dropped,
                "changes": self.number("changed"), "reasons": reasons,
                "too_long": {"cut": self.too_long["cut"], "split": self.too_long[SPLIT], "dropped": self.too_long["dropped"],
                             "tokens_lost": self.lost.total()}}

    def _lost(self, action: Action, reason: str) -> str:
        lost = self.lost[action, reason]
        return f", {lost} tokens lost" if lost else ""

    def _what(self) -> str:
        reasons = sorted({reason for action, reason in self.counts if action == "dropped"})
        return reasons[0] if len(reasons) == 1 else f"unusable ({', '.join(reasons)})"


@dataclass(frozen=True, slots=True)
class SetAudit:
    """One data set: how many rows were read, the notes in the order of the rows, and, where they were made, the tokens of its sequences:
    the spread of their lengths and of what is trained of them."""

    name: str
    rows: int
    notes: tuple[Note, ...]
    lengths: Spread | None = None
    trained: Spread | None = None

    @property
    def dropped(self) -> int:
        """Rows left out."""
        return sum(note.action == "dropped" for note in self.notes)

    def tally(self) -> Tally:
        """The notes, counted."""
        tally = Tally(self.name, self.rows)
        for note in self.notes:
            tally.add(note)
        return tally

    def summary(self) -> list[str]:
        """Lines to print."""
        return self.tally().summary()

    def check(self, max_dropped_fraction: float) -> None:
        """Raise `InputError` if no row is left, or if more than the allowed part was dropped."""
        self.tally().check(max_dropped_fraction)

    def to_json(self) -> dict[str, Any]:
        """The tally, and the spreads (null where there are none)."""
        return {**self.tally().to_json(), "tokens": None if self.lengths is None else self.lengths.to_json(),
                "trained_tokens": None if self.trained is None else self.trained.to_json()}


@dataclass(frozen=True, slots=True)
class Audit:
    """All data sets of a run."""

    sets: tuple[SetAudit, ...]

    def summary(self) -> list[str]:
        """Lines to print."""
        return [line for one in self.sets for line in one.summary()]

    def write(self, path: Path) -> None:
        """Write one JSON object per dropped or changed row to `path` (.jsonl), and the numbers of every set beside it (.json)."""
        with path.open("w", encoding="utf-8") as file:
            for one in self.sets:
                for note in one.notes:
                    file.write(note_line(one.name, note))
        summary = {"sets": [one.to_json() for one in self.sets]}
        path.with_suffix(".json").write_text(json.dumps(summary, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def note_line(dataset: str, note: Note) -> str:
    """The line of an audit file for one note."""
    return json.dumps({"dataset": dataset, **note.to_json()}, ensure_ascii=False) + "\n"


def notes_to_lines(notes: Iterable[Note]) -> str:
    """JSON lines for the token cache."""
    return "".join(json.dumps(note.to_json(), ensure_ascii=False) + "\n" for note in notes)


def notes_from_lines(text: str) -> tuple[Note, ...]:
    """The inverse of `notes_to_lines`."""
    return tuple(Note.from_json(json.loads(line)) for line in text.split("\n") if line)


def _named(notes: list[Note]) -> str:
    """`file:line (detail)` of each; a detail that all share is said once, before them."""
    details = [" ".join(note.detail.split()) for note in notes]
    if len(set(details)) == 1:
        places = ", ".join(str(note.origin) for note in notes)
        return f"{details[0]}: {places}" if details[0] else places
    return ", ".join(f"{note.origin} ({detail})" if detail else str(note.origin) for note,
                     detail in zip(notes, details, strict=True))

"""What the reader itself dropped, changed or could not read, by kind: roles, order, empty answers, wrong types. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from tunewright.data.audit import Note
from tunewright.data.doctor.finding import Finding, Sightings, of_rows
from tunewright.data.formats.convert import HAS_MEDIA
from tunewright.data.formats.turns import NO_TRAINED_TOKEN, OUT_OF_ORDER, UNKNOWN_ROLE
from tunewright.data.records import Origin
from tunewright.errors import InputError

_TURN: Final = re.compile(r"\bturn \d+\b")
_COUNT: Final = re.compile(r"^\d+ ")
_MOST_KINDS: Final = 50
_OTHERS: Final = "others"

_MENDS: Final = (
    ("is system after", "put the system message first, or leave it out"),
    ("but user comes first", "put the question before it, or take the turn out"),
    ("no answer follows", "add the answer, or take the last turn out"),
    ("after user", "join turns of one speaker, or add what stands between them"),
    ("empty answer", "write the answer, or take the rows out"),
    (OUT_OF_ORDER, "let question and answer alternate"),
    (UNKNOWN_ROLE, "name the role in `tags` of the data set, or rename it"),
    ("longer than cutoff_len", "raise cutoff_len, shorten them, or choose another cutoff_policy"),
    (HAS_MEDIA, "take the rows out, or declare the columns of the set, without these, to train on the text alone"),
    (NO_TRAINED_TOKEN, "write the answers, or take the rows out"),
)
"""Words of a reason -> what to do; the first that fits."""


class RefusedRows:
    """Groups notes by reason and detail, numbers of turns left out; and errors of rows that cannot be read at all."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str, str], Sightings] = {}
        self._errors: dict[str, Sightings] = {}

    def note(self, dataset: str, note: Note) -> None:
        """A row that the reader dropped or changed."""
        kind = (dataset, note.action, kind_of(note))
        if kind not in self._kinds and sum(one[0] == dataset for one in self._kinds) >= _MOST_KINDS:
            kind = (dataset, note.action, _OTHERS)
        self._kinds.setdefault(kind, Sightings()).add(note.origin, note.detail)

    def error(self, dataset: str, origin: Origin, error: InputError) -> None:
        """A row at which a run would stop."""
        self._errors.setdefault(dataset, Sightings()).add(origin, error.message)

    def findings(self, rows: Mapping[str, int]) -> list[Finding]:
        """One finding per data set and kind."""
        found = [
            Finding("unreadable-row", "error", dataset, f"{of_rows(seen.count, rows[dataset])} cannot be read, and stop a run",
                    "mend the rows", seen.count, tuple(seen.places))
            for dataset, seen in self._errors.items()]
        for (dataset, action, kind), seen in self._kinds.items():
            what = f"{of_rows(seen.count, rows[dataset])} {action}: {kind}"
            found.append(Finding(f"{action}-row", "warning", dataset, what, mend_of(kind), seen.count, tuple(seen.places)))
        return found


def kind_of(note: Note) -> str:
    """Reason and detail of a note without what differs from row to row."""
    reason = _COUNT.sub("", _TURN.sub("a turn", note.reason))
    if note.reason not in (OUT_OF_ORDER, UNKNOWN_ROLE):
        return reason
    return f"{reason}: {_TURN.sub('a turn', note.detail.partition(';')[0])}"


def mend_of(kind: str) -> str:
    """What to do about it."""
    return next((mend for words, mend in _MENDS if words in kind), "look at the rows")

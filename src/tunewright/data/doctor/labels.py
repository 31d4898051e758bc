"""Columns that sort rows into classes, and pairs of answers: how even they are. Standard library only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from tunewright.data.doctor.finding import Finding, Level
from tunewright.data.doctor.seen import Seen
from tunewright.data.records import Feedback, Message, Preference

COLUMNS: Final = ("category", "label", "kto_tag", "language")
_DESIRABLE: Final = "desirable"
_MOST_CLASSES: Final = 200
_SHOWN_CLASSES: Final = 10
_UNEVEN: Final = 10.0
_UNEVEN_FEEDBACK: Final = 4.0
_ENOUGH_ROWS: Final = 20
_ONE_SIDED: Final = 0.9


class Labels:
    """Counts the values of columns that are called like labels, as long as they are few."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], Counter[str | bool | int]] = {}

    def observe(self, seen: Seen) -> None:
        """Count the labels of one row; those of feedback under one name, whatever the column is called."""
        if isinstance(seen.record, Feedback):
            self._count(seen.dataset, _DESIRABLE, seen.record.desirable)
        for column in COLUMNS:
            value = seen.values.get(column)
            if isinstance(value, str | int) and not (isinstance(value, bool) and isinstance(seen.record, Feedback)):
                self._count(seen.dataset, column, value[:80] if isinstance(value, str) else value)

    def _count(self, dataset: str, column: str, value: str | bool | int) -> None:
        counts = self._counts.setdefault((dataset, column), Counter())
        if len(counts) <= _MOST_CLASSES:
            counts[value] += 1

    def findings(self) -> list[Finding]:
        """One finding per data set and column with more than one class."""
        return [_evenness(dataset, column, counts) for (dataset, column), counts in self._counts.items()
                if 1 < len(counts) <= _MOST_CLASSES]


def _evenness(dataset: str, column: str, counts: Counter[str | bool | int]) -> Finding:
    ordered = counts.most_common()
    total, ratio = sum(counts.values()), ordered[0][1] / ordered[-1][1]
    is_feedback = all(isinstance(value, bool) for value in counts)
    level: Level = "warning" if ratio >= (_UNEVEN_FEEDBACK if is_feedback else _UNEVEN) else "note"
    shown = ", ".join(f"{_word(value)} {count} ({count / total:.1%})" for value, count in ordered[:_SHOWN_CLASSES])
    more = f" and {len(ordered) - _SHOWN_CLASSES} more" if len(ordered) > _SHOWN_CLASSES else ""
    mend = "weigh the rarer ones or add to them" if level == "warning" else "nothing to do"
    return Finding("labels", level, dataset, f"{column}: {shown}{more}; most to least {ratio:.3g} to 1", mend, total)


def _word(value: str | bool | int) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class Pairs:
    """Compares the lengths of chosen and rejected answers."""

    def __init__(self) -> None:
        self._pairs: Counter[str] = Counter()
        self._longer: Counter[str] = Counter()

    def observe(self, seen: Seen) -> None:
        """Compare the pair of one row, if it is one."""
        if isinstance(seen.record, Preference):
            self._pairs[seen.dataset] += 1
            self._longer[seen.dataset] += _size(seen.record.chosen) > _size(seen.record.rejected)

    def findings(self) -> list[Finding]:
        """Sets whose chosen answers are nearly always the longer ones."""
        found = []
        for dataset, pairs in self._pairs.items():
            share = self._longer[dataset] / pairs
            if pairs >= _ENOUGH_ROWS and share >= _ONE_SIDED:
                what = f"the chosen answer is the longer one in {share:.0%} of {pairs} pairs"
                found.append(Finding("longer-is-chosen", "warning", dataset, what, "length may be what is learned: add other pairs",
                                     self._longer[dataset]))
        return found


def _size(messages: Sequence[Message]) -> int:
    """Characters of all turns and calls."""
    return sum(len(message.content) + sum(len(call.raw) for call in message.tool_calls) for message in messages)

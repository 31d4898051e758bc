"""Rows that are there twice: within a set, across training and evaluation, and answers that come again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from tunewright.data.doctor.finding import SHOWN_PLACES, Finding, Level, Place, of_rows
from tunewright.data.doctor.frame import NOTHING, Frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

_REPEATED: Final = 0.05
_OVERWHELMING: Final = 0.2
_ENOUGH_ROWS: Final = 20
_SHOWN_ANSWERS: Final = 3


def duplicates(frame: Frame, dataset: str) -> list[Finding]:
    """Rows that are exactly an earlier row of the same set."""
    rows = frame.of(dataset)
    first = _first_alike(frame.whole[rows])
    again = np.flatnonzero(first != np.arange(len(rows)))
    if not len(again):
        return []
    places = tuple(Place(frame.origin(rows[one]), f"as {frame.origin(rows[first[one]])}") for one in again[:SHOWN_PLACES])
    return [Finding("duplicate-row", "warning", dataset, f"{of_rows(len(again), len(rows))} are exactly earlier ones",
                    "take them out: repeated rows are learned by heart", len(again), places)]


def conflicts(frame: Frame, dataset: str) -> list[Finding]:
    """Questions that are answered differently."""
    rows = frame.of(dataset)
    rows = rows[(frame.prompt[rows] != NOTHING) & (frame.answer[rows] != NOTHING)]
    first = _first_alike(frame.prompt[rows])
    differs = np.flatnonzero(frame.answer[rows] != frame.answer[rows[first]])
    questions = np.unique(first[differs])
    if not len(questions):
        return []
    places = tuple(Place(frame.origin(rows[one]), f"asks what {frame.origin(rows[first[one]])} asks") for one in differs[:SHOWN_PLACES])
    what = f"{len(questions)} question{'s are' if len(questions) > 1 else ' is'} answered in different ways"
    return [Finding("conflicting-answers", "warning", dataset, what, "keep the right answer, if there is one", len(questions), places)]


def repeated_answers(frame: Frame, dataset: str) -> list[Finding]:
    """Answers that are given in more than a twentieth of the rows."""
    rows = frame.of(dataset)
    rows = rows[frame.answer[rows] != NOTHING]
    if len(rows) < _ENOUGH_ROWS:
        return []
    _, first, counts = np.unique(frame.answer[rows], return_index=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    often = [one for one in order if counts[one] > _REPEATED * len(rows)]
    if not often:
        return []
    top = int(counts[often[0]])
    level: Level = "warning" if top > _OVERWHELMING * len(rows) else "note"
    places = tuple(Place(frame.origin(rows[first[one]]), f"{counts[one]} times") for one in often[:_SHOWN_ANSWERS])
    what = f"one answer is given in {top} of {len(rows)} rows ({top / len(rows):.1%})"
    mend = "make the answers more varied, unless they are classes"
    return [Finding("repeated-answer", level, dataset, what, mend, int(counts[often].sum()), places)]


def leakage(frame: Frame, training: Sequence[str], evaluation: Sequence[str]) -> list[Finding]:
    """Rows of evaluation sets that are in the training sets too, whole or by their question."""
    trained = np.concatenate([frame.of(name) for name in training]) if training else np.empty(0, np.int64)
    found: list[Finding] = []
    if len(trained):
        for name in evaluation:
            found += _leaks(frame, trained, name)
    return found


def _leaks(frame: Frame, trained: Rows, dataset: str) -> list[Finding]:
    rows = frame.of(dataset)
    whole = np.isin(frame.whole[rows], frame.whole[trained])
    asked = np.isin(frame.prompt[rows], frame.prompt[trained]) & (frame.prompt[rows] != NOTHING) & ~whole
    kinds = (("leaked-row", frame.whole, whole, "are training rows too", "evaluation on them measures memory"),
             ("leaked-question", frame.prompt, asked, "ask what training rows ask, with another answer", "evaluation on them is too easy"))
    found = []
    for check, column, is_there, what, why in kinds:
        leaked = rows[is_there]
        if len(leaked):
            places = tuple(_beside(frame, column, row, trained) for row in leaked[:SHOWN_PLACES])
            found.append(Finding(check, "warning", dataset, f"{of_rows(len(leaked), len(rows))} {what}",
                                 f"take them out of one side: {why}", len(leaked), places))
    return found


def _beside(frame: Frame, column: NDArray[np.bytes_], row: int, trained: Rows) -> Place:
    twin = trained[int(np.argmax(column[trained] == column[row]))]
    return Place(frame.origin(row), f"as {frame.origin(twin)}")


def split_twins(frame: Frame, training: Sequence[str]) -> list[Finding]:
    """Duplicates that a random split by `val_size` may part."""
    rows = np.concatenate([frame.of(name) for name in training]) if training else np.empty(0, np.int64)
    first = _first_alike(frame.whole[rows])
    again = np.flatnonzero(first != np.arange(len(rows)))
    if not len(again):
        return []
    places = tuple(Place(frame.origin(rows[one]), f"as {frame.origin(rows[first[one]])}") for one in again[:SHOWN_PLACES])
    what = f"{len(again)} duplicates may stand on both sides of the split that val_size makes"
    return [Finding("split-twins", "warning", "val_size", what, "take them out, or give an eval_dataset", len(again), places)]


def _first_alike(digests: NDArray[np.bytes_]) -> Rows:
    """[rows] For each row the first one with the same digest."""
    if not len(digests):
        return np.empty(0, np.int64)
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    return np.asarray(first[inverse.reshape(-1)], np.int64)

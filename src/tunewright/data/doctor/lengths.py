"""Rows that are unlike the others in length, cut, or hardly trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from tunewright.data.doctor.finding import SHOWN_PLACES, Finding, Level, Place, of_rows
from tunewright.data.doctor.frame import Frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

_FAR: Final = 6.0
_LEAST_SCATTER: Final = 0.25
_TO_DEVIATION: Final = 1.4826
_ENOUGH_ROWS: Final = 20


def outliers(frame: Frame, dataset: str) -> list[Finding]:
    """Rows far longer or shorter than the others of their set.

    Far is six robust standard deviations of the logarithm of the length (1.4826 times the median distance from the median, at least 0.25),
    so that about a factor of 9 is the least.
    """
    rows = frame.of(dataset)
    sizes, unit = frame.sizes
    if len(rows) < _ENOUGH_ROWS:
        return []
    logs = np.log(np.maximum(sizes[rows], 1))
    middle = float(np.median(logs))
    reach = _FAR * _TO_DEVIATION * max(float(np.median(np.abs(logs - middle))), _LEAST_SCATTER)
    found = []
    for check, far, word, why in (("long-row", logs > middle + reach, "longer", "files that were pasted whole, missing line ends"),
                                  ("short-row", logs < middle - reach, "shorter", "texts that were lost")):
        what = f"far {word} than the others (median {round(float(np.exp(middle)))} {unit})"
        found += _findings(frame, rows[far], Finding(check, "note", dataset, f"are {what}", f"look at them: {why}", 0),
                           lambda row: f"{sizes[row]} {unit}")
    return found


def cut(frame: Frame, dataset: str, cutoff_len: int) -> list[Finding]:
    """Rows over `cutoff_len`; a warning from a hundredth on."""
    rows = frame.of(dataset)
    over = rows[frame.tokens[rows] > cutoff_len]
    level: Level = "warning" if len(over) >= 0.01 * len(rows) else "note"
    draft = Finding("over-cutoff", level, dataset, f"are longer than cutoff_len {cutoff_len} and lose something",
                    f"raise cutoff_len (the longest has {int(frame.tokens[rows].max(initial=0))} tokens) or shorten them", 0)
    return _findings(frame, over, draft, lambda row: f"{frame.tokens[row]} tokens")


def hardly_trained(frame: Frame, dataset: str, fewest: int) -> list[Finding]:
    """Rows with fewer than `fewest` trained tokens, the token that ends the answer included. Those with none are dropped, and noted so."""
    rows = frame.of(dataset)
    few = rows[(frame.trained[rows] < fewest) & (frame.trained[rows] > 0)]
    draft = Finding("hardly-trained", "warning", dataset, f"have fewer than {fewest} trained tokens",
                    "look at what is trained: tunewright preview", 0)
    return _findings(frame, few, draft, lambda row: f"{frame.trained[row]} of {frame.tokens[row]} tokens")


def _findings(frame: Frame, found: Rows, draft: Finding, detail: Callable[[int], str]) -> list[Finding]:
    """The draft with the count and the places of the rows `found`; nothing if there are none."""
    if not len(found):
        return []
    places = tuple(Place(frame.origin(int(row)), detail(int(row))) for row in found[:SHOWN_PLACES])
    what = f"{of_rows(len(found), len(frame.of(draft.dataset)))} {draft.what}"
    return [replace(draft, what=what, count=len(found), places=places)]

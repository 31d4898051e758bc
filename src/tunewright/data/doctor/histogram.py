"""Numbers of rows by size, in bins of whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BINS: Final = 32
_WIDE: Final = 20


@dataclass(frozen=True, slots=True)
class Histogram:
    """Bin b holds counts[b] numbers from edges[b] to edges[b + 1] - 1."""

    edges: tuple[int, ...]
    counts: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Edges and counts as lists."""
        return {"edges": list(self.edges), "counts": list(self.counts)}


def histogram(values: NDArray[np.integer]) -> Histogram:
    """Up to 32 bins over all values: of equal width, or, where the largest is far from the median, of equal ratio."""
    if len(values) == 0:
        return Histogram((0, 1), (0,))
    least, most, middle = int(values.min()), int(values.max()), float(np.median(values))
    if most > _WIDE * max(middle, 1.0):
        edges = np.geomspace(max(least, 1), most + 1, _BINS + 1)
        edges[0] = least
    else:
        edges = np.linspace(least, most + 1, _BINS + 1)
    whole = np.unique(np.ceil(edges - 1e-9).astype(np.int64))
    whole[-1] = most + 1
    counts, _ = np.histogram(values, whole)
    return Histogram(tuple(map(int, whole)), tuple(map(int, counts)))

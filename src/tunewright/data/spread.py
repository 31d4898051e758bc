"""How a number is spread over rows: total, smallest, median, 95th percentile, largest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tunewright.data.examples import TokenStore


@dataclass(frozen=True, slots=True)
class Spread:
    """Of `rows` numbers. A quantile q is the smallest of them that at least the part q does not exceed; all 0 where there are none."""

    rows: int
    total: int
    least: int
    median: int
    p95: int
    most: int

    @classmethod
    def of(cls, values: NDArray[np.integer]) -> Spread:
        """The spread of `values` [rows]."""
        if len(values) == 0:
            return cls(0, 0, 0, 0, 0, 0)
        median, p95 = (int(one) for one in np.quantile(values, [0.5, 0.95], method="inverted_cdf"))
        return cls(len(values), int(values.sum(dtype=np.int64)), int(values.min()), median, p95, int(values.max()))

    def to_json(self) -> dict[str, int]:
        """By name."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.least} to {self.most}, median {self.median}, 95 % up to {self.p95}"


def token_spreads(store: TokenStore) -> tuple[Spread, Spread]:
    """The spread of the lengths of a store's rows in tokens, and of their trained tokens."""
    if len(store) == 0:
        return Spread.of(np.empty(0, np.int64)), Spread.of(np.empty(0, np.int64))
    return Spread.of(np.diff(store.offsets)), Spread.of(store.trained())

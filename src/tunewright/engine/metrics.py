"""Figures of evaluation and prediction: exact sums, means, and how fast it went."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

Metrics = dict[str, float]


def exact_mean(parts: Iterable[tuple[float, float]]) -> float:
    """Sum of the first over sum of the second of each (sum, count) pair, NaN without a count.

    `math.fsum` rounds once, at the end: the order of the parts, and so the number of ranks, does not change a bit.
    """
    pairs = list(parts)
    count = math.fsum(count for _, count in pairs)
    return math.fsum(total for total, _ in pairs) / count if count else math.nan


def speed(prefix: str, runtime_s: float, samples: int, steps: int) -> Metrics:
    """Run time and throughput under the Hugging Face names, rounded as there."""
    safe = max(runtime_s, 1e-9)
    return {
        f"{prefix}_runtime": round(runtime_s, 4),
        f"{prefix}_samples_per_second": round(samples / safe, 3),
        f"{prefix}_steps_per_second": round(steps / safe, 3),
    }


def mean_of_rows(rows: Sequence[Mapping[str, float]]) -> Metrics:
    """Mean of every metric over the rows."""
    return {name: math.fsum(row[name] for row in rows) / len(rows) for name in rows[0]} if rows else {}


def exact_match(predicted: str, label: str) -> float:
    """100 if the two texts are equal but for white space around them, else 0."""
    return 100.0 if predicted.strip() == label.strip() else 0.0

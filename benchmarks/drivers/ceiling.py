"""The most that torch's matrix product does on this machine in float32, now.

usage: ceiling.py  ->  one line RESULT {...}, in billions of operations per CPU second and per second of the clock.

Threads are those of OMP_NUM_THREADS. The shapes are a square one and those of a layer of a small model; the fastest one counts.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import Final

SHAPES: Final = ((1024, 1024, 1024), (1024, 576, 1536), (1024, 1536, 576))
_SECONDS: Final = 0.3
_REPEATS: Final = 5


def main() -> None:
    """Measure and tell."""
    found = [_rates(shape) for shape in SHAPES]
    print("RESULT " + json.dumps({"gflop_per_cpu_s": max(cpu for cpu, _ in found), "gflop_per_s": max(wall for _, wall in found)}))


def _rates(shape: tuple[int, int, int]) -> tuple[float, float]:
    """Medians of some measurements, each of many products."""
    import torch

    rows, inner, columns = shape
    left, right = torch.randn(rows, inner), torch.randn(inner, columns)
    left @ right
    work = 2e-9 * rows * inner * columns
    times = max(3, round(_SECONDS * 50 / work))
    rates = []
    for _ in range(_REPEATS):
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(times):
            left @ right
        rates.append((work * times / (time.process_time() - cpu), work * times / (time.perf_counter() - wall)))
    return round(statistics.median(rate for rate, _ in rates), 1), round(statistics.median(rate for _, rate in rates), 1)


if __name__ == "__main__":
    main()

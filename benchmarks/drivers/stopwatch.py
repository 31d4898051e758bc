"""What is measured of one side, the same in every driver: CPU seconds, wall time and memory of the process, step by step.

Nothing here imports more than the standard library: each driver runs in the environment of what it drives.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NamedTuple

SHOWN: Final = ("torch", "transformers", "peft", "accelerate", "trl", "llamafactory", "ms_swift", "litgpt")
"""Packages whose versions are written down."""


class Stamp(NamedTuple):
    """What the process had used at a moment: CPU seconds of all its threads and children, seconds of the clock."""

    cpu: float
    wall: float


class Stopwatch:
    """Stamps of the end of each optimizer step. What is timed lies between the end of the warm-up and the end of the last step."""

    def __init__(self) -> None:
        self._stamps: list[Stamp] = []

    def step_ended(self) -> None:
        """Take the stamp of a step."""
        self._stamps.append(_now())

    def tell(self, job: dict[str, Any], losses: list[float]) -> None:
        """Print the result line. `losses`: mean loss of each step, as the tool itself logged it."""
        warm, stamps = job["warm"], self._stamps
        if len(stamps) != job["steps"] or len(losses) != job["steps"]:
            raise SystemExit(f"error: {job['steps']} steps were asked for; {len(stamps)} were taken and {len(losses)} losses logged")
        before, end = stamps[warm - 1], stamps[-1]
        print("RESULT " + json.dumps({
            "cpu": round(end.cpu - before.cpu, 3), "wall": round(end.wall - before.wall, 3), "cpu_before": round(before.cpu, 3),
            "step_cpu": [round(last.cpu - first.cpu, 3) for first, last in zip(stamps[warm - 1 :], stamps[warm:], strict=False)],
            "peak_mb": peak_mb(), "gpu_mb": _gpu_mb(), "losses": losses, "versions": versions()}),
            flush=True)


def _now() -> Stamp:
    if (cuda := _cuda()) is not None:
        cuda.synchronize()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Stamp(time.process_time() + children.ru_utime + children.ru_stime, time.perf_counter())


def _cuda() -> Any:
    """torch's module for NVIDIA GPUs, where the driver's process uses one."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    return cuda if cuda is not None and cuda.is_initialized() else None


def _gpu_mb() -> int | None:
    """The most that tensors have held on the GPU, if there is one."""
    cuda = _cuda()
    return None if cuda is None else round(cuda.max_memory_allocated() / 2**20)


def peak_mb() -> int:
    """The most memory that the process has held."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def versions() -> dict[str, str]:
    """Versions of the packages that matter, of those that are installed."""
    found = {}
    for name in SHOWN:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def read_job() -> dict[str, Any]:
    """The job that the first argument of the driver is the file of."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    return job

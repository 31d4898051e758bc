"""What is known of a check's cases once they ran: one line of JSON for each of its groups. Standard library only."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tunewright.errors import InputError
from tunewright.selftest.check import Outcome, Size

TOLD = 20
"""Failed cases of a group that are named."""
PACKAGES = ("torch", "transformers", "peft", "accelerate")


@dataclass(frozen=True, slots=True)
class Result:
    """A group of a check. `failed`: the first cases that did not pass, with the reason; `left_out`: why none of its cases ran."""

    check: str
    group: str
    size: str
    cases: int = 0
    passed: int = 0
    cpu_s: float = 0.0
    failed: tuple[tuple[str, str], ...] = ()
    left_out: str | None = None


def result_of(check: str, group: str, size: Size, outcomes: Iterable[Outcome], cpu_s: float) -> Result:
    """Count a group's outcomes."""
    found = list(outcomes)
    failed = tuple((one.case, one.said) for one in found if not one.passed)
    return Result(check, group, size, len(found), len(found) - len(failed), round(cpu_s, 1), failed[:TOLD])


def append(file: Path, run: str, results: Iterable[Result]) -> None:
    """Add a run's results to the record, below the time at which it began."""
    file.parent.mkdir(parents=True, exist_ok=True)
    about = {"run": run, "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
             "versions": {"tunewright": _own_version(), **{name: version(name) for name in PACKAGES}}}
    with file.open("a", encoding="utf-8") as stream:
        for one in results:
            stream.write(json.dumps(about | asdict(one)) + "\n")


def newest(file: Path) -> Mapping[str, tuple[str, tuple[Result, ...]]]:
    """Check -> the time of its newest run in full size (of a sample, where there is none), and its results there."""
    runs: dict[str, dict[tuple[bool, str], list[Result]]] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry: dict[str, Any] = json.loads(line)
            one = Result(**{name: entry[name] for name in Result.__slots__})
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file}:{number}: not a line of a record ({type(error).__name__})") from error
        runs.setdefault(one.check, {}).setdefault((one.size == Size.FULL, entry["run"]), []).append(one)
    return {check: (max(found)[1], tuple(found[max(found)])) for check, found in runs.items()}


def _own_version() -> str:
    from tunewright import __version__

    return __version__

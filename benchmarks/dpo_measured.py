"""The lines that `dpo_step.py` wrote, put together."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
from lines import Line

OWN: Final = "tunewright"
CACHED: Final = "tunewright-cached"
NAMES: Final = {
    OWN: "tunewright, live reference", CACHED: "tunewright, cached reference (default)",
    "tunewright-unshared": "tunewright, live reference, each prompt twice", "trl": "TRL, live reference, checkpointing (default)",
    "trl-no-checkpointing": "TRL, live reference, no checkpointing", "trl-cached": "TRL, cached reference, checkpointing",
    "trl-cached-no-checkpointing": "TRL, cached reference, no checkpointing"}
Turn = tuple[str, int]
"""A run of the benchmark, and a round of it."""
_APART: Final = ("run", "what")
"""What two equal workloads may differ in."""


class DpoMeasured(NamedTuple):
    """All that is known. `turns`: side -> turn -> what it told, of every run on the rows and the model of the newest; `newest`: the run of
    the benchmark whose figures of a side are shown; `failures`: of that run."""

    machine: Line
    workload: Line
    turns: dict[str, dict[Turn, Line]]
    newest: dict[str, str]
    failures: dict[str, str]

    def shown(self, side: str) -> dict[Turn, Line]:
        """The newest figures of a side."""
        return {turn: line for turn, line in self.turns.get(side, {}).items() if turn[0] == self.newest[side]}

    def speeds(self, side: str, per: str) -> list[float]:
        """Pairs per second of `per` (cpu or wall), by turn."""
        return [line["pairs"] / line[per] for line in self.shown(side).values()]

    def ratios(self, side: str, own: str, figure: str) -> list[float]:
        """`figure` of the side over that of `own`, one of ours, in the same turn."""
        ours = self.turns.get(own, {})
        return [line[figure] / ours[turn][figure] for turn, line in self.shown(side).items() if turn in ours]


def read_dpo(path: Path) -> DpoMeasured | None:
    """What the file holds; None without a file, or where no side is in it."""
    lines: list[Line] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    sides = [line for line in lines if line["what"] == "side"]
    if not sides:
        return None
    machines, workloads = ({line["run"]: line for line in lines if line["what"] == what} for what in ("machine", "workload"))
    last = sides[-1]["run"]
    sides = [line for line in sides if machines[line["run"]]["model"] == machines[last]["model"]
             and _bare(workloads[line["run"]]) == _bare(workloads[last])]
    newest = {line["side"]: line["run"] for line in sides}
    turns: dict[str, dict[Turn, Line]] = {}
    for line in sides:
        if "failure" not in line:
            turns.setdefault(line["side"], {})[line["run"], line["round"]] = line
    failures = {line["side"]: line["failure"] for line in sides if "failure" in line and line["run"] == newest[line["side"]]}
    return DpoMeasured(machines[last], workloads[last], turns, newest, failures)


def _bare(workload: Line) -> Line:
    return {name: value for name, value in workload.items() if name not in _APART}

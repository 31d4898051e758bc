"""The lines that `training.py` wrote, put together case by case."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
from parts import PRODUCTS, Case
from sides import OWN

Line = dict[str, Any]
Turn = tuple[str, int]
"""A run of the benchmark, and a round of it."""
_APART: Final = ("run", "what")
"""What two equal workloads may differ in."""


class Measured(NamedTuple):
    """All that is known of a case. `runs`: side -> turn -> what it told, of the newest run of the benchmark that has the side.

    `own` are all turns of tunewright: a side is compared with the one of its own turn, which ran beside it.
    """

    case: Case
    machine: Line
    workload: Line
    ceilings: dict[Turn, Line]
    own: dict[Turn, Line]
    runs: dict[str, dict[Turn, Line]]
    failures: dict[str, str]

    def speeds(self, side: str, per: str) -> list[float]:
        """Tokens per second of `per` (cpu or wall), by turn."""
        return [line["tokens"] / line[per] for line in self.runs.get(side, {}).values()]

    def ratios(self, side: str, figure: str) -> list[float]:
        """`figure` of the side over tunewright's of the same turn."""
        return [line[figure] / self.own[turn][figure] for turn, line in self.runs.get(side, {}).items() if turn in self.own]

    def shares(self, side: str) -> list[float]:
        """Percent of the machine's matrix product that the tokens' own operations make up."""
        work = 1e-9 * PRODUCTS[self.case.tuning] * self.machine["parameters"]
        return [100 * work * line["tokens"] / line["cpu"] / self.ceilings[turn]["gflop_per_cpu_s"]
                for turn, line in self.runs.get(side, {}).items()]


def read_cases(path: Path) -> list[Measured]:
    """Every case in the order of its first appearance.

    Only runs of the same model and the same rows as the newest run of a case are put together; older ones are left out.
    """
    lines: list[Line] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    machines = {line["run"]: line for line in lines if line["what"] == "machine"}
    cases = dict.fromkeys(_case(line) for line in lines if line["what"] == "side")
    return [_put_together(case, [line for line in lines if line["what"] != "machine" and _case(line) == case], machines) for case in cases]


def _case(line: Line) -> Case:
    return Case(line["kind"], line["tuning"], line["threads"])


def _put_together(case: Case, lines: list[Line], machines: dict[str, Line]) -> Measured:
    workloads = {line["run"]: line for line in lines if line["what"] == "workload"}
    last = [line["run"] for line in lines if line["what"] == "side"][-1]

    def alike(run: str) -> bool:
        return machines[run]["model"] == machines[last]["model"] and _bare(workloads[run]) == _bare(workloads[last])

    lines = [line for line in lines if alike(line["run"])]
    sides = [line for line in lines if line["what"] == "side"]
    newest = {line["side"]: line["run"] for line in sides}
    shown = [line for line in sides if line["run"] == newest[line["side"]]]
    return Measured(
        case, machines[last], workloads[last], _by_turn(line for line in lines if line["what"] == "ceiling"),
        _by_turn(line for line in sides if line["side"] == OWN and "failure" not in line), _runs(shown),
        {line["side"]: line["failure"] for line in shown if "failure" in line})


def _runs(lines: list[Line]) -> dict[str, dict[Turn, Line]]:
    found = {side: _by_turn(line for line in lines if line["side"] == side and "failure" not in line)
             for side in dict.fromkeys(line["side"] for line in lines)}
    return {side: turns for side, turns in found.items() if turns}


def _by_turn(lines: Iterable[Line]) -> dict[Turn, Line]:
    return {(line["run"], line["round"]): line for line in lines}


def _bare(workload: Line) -> Line:
    return {name: value for name, value in workload.items() if name not in _APART}

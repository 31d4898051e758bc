"""What was aimed at, beside what was measured: the summary at the head of docs/benchmarks.md."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
from dpo_measured import CACHED, DpoMeasured
from dpo_measured import NAMES as DPO_NAMES
from dpo_measured import OWN as LIVE
from measured import Measured
from parts import Case
from sides import OWN, YARDSTICK

Line = dict[str, Any]
NAMES: Final = {
    OWN: "tunewright", YARDSTICK: "plain Trainer + peft",
    "trl": "TRL, default (checkpointing)", "trl-no-checkpointing": "TRL, no checkpointing",
    "ms-swift": "ms-swift, default (checkpointing)", "ms-swift-no-checkpointing": "ms-swift, no checkpointing", "litgpt": "LitGPT",
    "llamafactory": "LLaMA-Factory, default (checkpointing)", "llamafactory-no-checkpointing": "LLaMA-Factory, no checkpointing"}
_LORA, _UNIFORM, _FULL = Case("long-tailed", "lora", 1), Case("uniform", "lora", 1), Case("long-tailed", "full", 1)
SPEED: Final = (
    (_LORA, YARDSTICK, 2.3), (_LORA, "llamafactory", 3.2), (_LORA, "llamafactory-no-checkpointing", 2.5), (_LORA, "trl", 3.5),
    (_UNIFORM, YARDSTICK, 1.5), (_FULL, YARDSTICK, 1.8))
SHARE: Final = 65.0
MEMORY: Final = 0.5
PREPROCESSING: Final = 3.0
DPO: Final = ((LIVE, "trl", 2.5), (CACHED, "trl", 4.0))
"""Ours, TRL's default, and how many times its speed ours should be. What is like with like is in the table below."""


class Figure(NamedTuple):
    """One line of the summary. `values` is empty while nothing was measured; `layout` is a format of each."""

    what: str
    target: float
    values: list[float]
    layout: str
    unit: str = ""
    at_most: bool = False

    def row(self) -> str:
        """The line of the table, with the verdict on the median."""
        wish = f"{'at most' if self.at_most else 'at least'} {self.target:g}{self.unit}"
        if not self.values:
            return f"| {self.what} | {wish} | | not measured |"
        middle = statistics.median(self.values)
        met = middle <= self.target if self.at_most else middle >= self.target
        return f"| {self.what} | {wish} | {spread(self.values, self.layout)}{self.unit} | {'met' if met else '**missed**'} |"


def summary(cases: Sequence[Measured], dpo: DpoMeasured | None, preprocessing: Line | None, startup: Line | None) -> str:
    """The whole table, also of what has not been measured."""
    found = {measured.case: measured for measured in cases}
    figures = [_faster(found.get(case), case, side, target) for case, side, target in SPEED]
    figures += [_share(found.get(_LORA)), *(_memory(found.get(case), case) for case in (_LORA, _UNIFORM, _FULL))]
    figures += [_dpo_faster(dpo, *aim) for aim in DPO]
    figures += [_dpo_memory(dpo, own, side) for own, side, _ in DPO]
    figures += [_rows(preprocessing), *_commands(startup)]
    return "\n".join(["## Targets", "", "CPU seconds, one thread.", "", "| figure | target | measured | |", "|---|---|---|---|",
                      *(figure.row() for figure in figures), ""])


def spread(values: Sequence[float], layout: str) -> str:
    """Median (least to most), or the only value; nothing for nothing."""
    if len(set(values)) < 2:
        return "".join(format(value, layout) for value in values[:1])
    middle, least, most = (format(value, layout) for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({least} to {most})"


def _label(case: Case) -> str:
    return f"{'LoRA' if case.tuning == 'lora' else 'full'} SFT, {case.kind} rows"


def _faster(measured: Measured | None, case: Case, side: str, target: float) -> Figure:
    return Figure(f"{_label(case)}: times the speed of {NAMES[side]}", target, measured.ratios(side, "cpu") if measured else [], ".2f")


def _share(measured: Measured | None) -> Figure:
    return Figure(f"{_label(_LORA)}: share of the matrix-product ceiling", SHARE, measured.shares(OWN) if measured else [], ".0f", " %")


def _memory(measured: Measured | None, case: Case) -> Figure:
    parts = [1 / ratio for ratio in measured.ratios(YARDSTICK, "peak_mb")] if measured else []
    return Figure(f"{_label(case)}: peak memory over plain Trainer's, same batches", MEMORY, parts, ".2f", at_most=True)


def _dpo_faster(measured: DpoMeasured | None, own: str, side: str, target: float) -> Figure:
    what = f"DPO, {_reference(own)}: times the speed of {DPO_NAMES[side]}"
    return Figure(what, target, measured.ratios(side, own, "cpu") if measured else [], ".2f")


def _dpo_memory(measured: DpoMeasured | None, own: str, side: str) -> Figure:
    parts = [1 / ratio for ratio in measured.ratios(side, own, "peak_mb")] if measured else []
    return Figure(f"DPO, {_reference(own)}: peak memory over that of {DPO_NAMES[side]}", MEMORY, parts, ".2f", at_most=True)


def _reference(own: str) -> str:
    return "cached reference" if own == CACHED else "live reference"


def _rows(preprocessing: Line | None) -> Figure:
    told = preprocessing["workers"]["1"]["times_the_rows_per_cpu_second"] if preprocessing else {}
    values = [told[name] for name in ("min", "median", "max")] if told else []
    return Figure("preprocessing: times the rows per second of LLaMA-Factory", PREPROCESSING, values, ".2f")


def _commands(startup: Line | None) -> list[Figure]:
    return [Figure(f"`{one['command']}`: CPU seconds", one["target"], one["cpu"], ".2f", at_most=True)
            for one in (startup["commands"] if startup else []) if one["target"] is not None]

"""The lines that `gpu_training.py` wrote, as a section of docs/benchmarks.md."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent))
from sides import OWN, YARDSTICK
from targets import NAMES as SIDE_NAMES
from targets import spread

Line = dict[str, Any]
NAMES: Final = {
    OWN: SIDE_NAMES[OWN], f"{OWN}-liger": f"{SIDE_NAMES[OWN]}, enable_liger_kernel",
    f"{YARDSTICK}-liger": f"{SIDE_NAMES[YARDSTICK]} + Liger", YARDSTICK: SIDE_NAMES[YARDSTICK]}
TARGETS: Final = {"full": 50, "lora": 45}
"""Percent of the card's peak."""
_UNMEASURED: Final = """Not measured: no GPU was at hand. Where there is one, `python benchmarks/gpu_training.py` measures models of the
shapes of Llama 3 1B and 8B in bfloat16, LoRA and full, against plain Trainer with Liger's kernels."""


def section(path: Path) -> str:
    """A table for each shape and tuning of the newest run, or the line that there is none."""
    lines: list[Line] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    if not lines:
        return "\n".join(["## On a GPU", "", _UNMEASURED, ""])
    newest = [line for line in lines if line["run"] == lines[-1]["run"]]
    card = next(line["card"] for line in newest if line["what"] == "machine")
    sides = [line for line in newest if line["what"] == "side"]
    found = ["## On a GPU", "", f"{card['name']}, {card['tflops']} TFLOP/s at its peak in bfloat16; rows of 192 tokens."]
    for shape, tuning in dict.fromkeys((line["shape"], line["tuning"]) for line in sides):
        these = [line for line in sides if (line["shape"], line["tuning"]) == (shape, tuning)]
        found += ["", f"{shape}, {tuning}, {these[0]['batch']} rows to a step; target: {TARGETS[tuning]} % of the peak.", "",
                  "| | tokens per s | share of the peak | GPU memory, MB |", "|---|---|---|---|",
                  *(_row(side, [line for line in these if line["side"] == side]) for side in dict.fromkeys(one["side"] for one in these))]
    return "\n".join([*found, ""])


def _row(side: str, lines: list[Line]) -> str:
    measured = [line for line in lines if "failure" not in line]
    if not measured:
        return f"| {NAMES[side]} | failed: {lines[-1]['failure']} | | |"
    return (f"| {NAMES[side]} | {spread([line['tokens_per_s'] for line in measured], '.0f')} | "
            f"{spread([100 * line['share'] for line in measured], '.0f')} % | {spread([line['gpu_mb'] for line in measured], '.0f')} |")

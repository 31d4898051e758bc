"""How much of the disk a checkpoint takes, from the shapes of the model's weights."""

from __future__ import annotations

import math

from tunewright.adapters.unopened import HEADS, Shapes
from tunewright.config.run import RunConfig

MOMENTS: int = 8
"""Bytes that Adam keeps for each trained number: two moments in float32."""


def checkpoint_bytes(run: RunConfig, shapes: Shapes) -> int:
    """Bytes of one checkpoint: the trained numbers and the optimizer's state. For freeze tuning nothing is assumed but 0."""
    kind = run.tuning.finetuning_type
    if kind == "full":
        numbers = sum(math.prod(shape) for shape in shapes.values())
    elif kind == "lora":
        numbers = sum(_adapter_numbers(name, shape, run) for name, shape in shapes.items())
    else:
        numbers = 0
    return numbers * ((2 if run.precision.pure_bf16 else 4) + (MOMENTS if run.optimizer.optim.startswith("adamw") else 0))


def _adapter_numbers(name: str, shape: tuple[int, ...], run: RunConfig) -> int:
    """Both factors for a weight matrix that lora_target names by its last part; `all` leaves out embedding and head."""
    part = name.removesuffix(".weight").rpartition(".")[2]
    is_inner = ".layers." in name or ".h." in name
    wanted = is_inner if "all" in run.lora.lora_target else part in run.lora.lora_target
    return run.lora.lora_rank * sum(shape) if len(shape) == 2 and wanted and part not in HEADS else 0

"""How much of the disk a checkpoint takes, from the shapes of the model's weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from tunewright.adapters.unopened import HEADS, Shapes
from tunewright.config.run import RunConfig

_MOMENTS: Final[Mapping[str, int]] = {"adamw": 2, "lamb": 2, "ademamix": 3, "lion": 1, "rmsprop": 1, "adagrad": 1}
"""Numbers that an optimizer keeps for each trained one; those left out keep none, or too few to count."""


def checkpoint_bytes(run: RunConfig, shapes: Shapes) -> int:
    """Bytes of one checkpoint: the trained numbers and the optimizer's state. For freeze tuning nothing is assumed but 0."""
    kind = run.tuning.finetuning_type
    if kind == "full":
        numbers = sum(math.prod(shape) for shape in shapes.values())
    elif kind == "lora":
        numbers = sum(_adapter_numbers(name, shape, run) for name, shape in shapes.items())
    else:
        numbers = 0
    return numbers * ((2 if run.precision.pure_bf16 else 4) + moment_bytes(run.optimizer.optim))


def moment_bytes(optim: str) -> int:
    """Bytes of an optimizer's state for each trained number: moments in float32, or in one byte each."""
    family = next((name for name in _MOMENTS if name in optim), "")
    return _MOMENTS.get(family, 0) * (1 if "8bit" in optim else 4)


def _adapter_numbers(name: str, shape: tuple[int, ...], run: RunConfig) -> int:
    """Both factors for a weight matrix that lora_target names by its last part; `all` leaves out embedding and head."""
    part = name.removesuffix(".weight").rpartition(".")[2]
    is_inner = ".layers." in name or ".h." in name
    wanted = is_inner if "all" in run.lora.lora_target else part in run.lora.lora_target
    return run.lora.lora_rank * sum(shape) if len(shape) == 2 and wanted and part not in HEADS else 0

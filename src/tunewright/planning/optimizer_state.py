"""What an optimizer keeps for each trained weight, and what its update needs for a moment, from shapes alone.

The figures are those of the classes in engine.optimizers; a test builds each of them, takes a step and counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tunewright.config.optimization import OptimizerConfig

_QUANTISED_FROM: Final = 4096
_QUANTISED_BLOCK: Final = 256


@dataclass(frozen=True, slots=True)
class Weight:
    """A trained weight: its shape, and the bytes of one number."""

    shape: tuple[int, ...]
    itemsize: int
    is_matrix: bool = True

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


def state_bytes(optimizer: OptimizerConfig, weights: Iterable[Weight]) -> int:
    """Bytes of the optimizer's state once it has taken a step; counters are left out."""
    rule = _method(optimizer) or _rule(optimizer)
    return sum(rule(weight) for weight in weights)


def update_bytes(optimizer: OptimizerConfig, weights: Iterable[Weight], *, on_gpu: bool) -> int:
    """Bytes that one update needs besides weights, gradients and state.

    Weights are updated one after the other, with temporaries of the largest; on a GPU torch takes all of them together.
    """
    sizes = [weight.numbers * weight.itemsize for weight in weights]
    copies = 0 if _is_fused(optimizer) else 1 if "adamw" in optimizer.optim or optimizer.optim in _TORCH else 3
    together = on_gpu and optimizer.optim in ("adamw_torch", *_TORCH) and _method(optimizer) is None
    return copies * (sum(sizes) if together else 2 * max(sizes, default=0))


_TORCH: Final = ("sgd", "adagrad", "rmsprop")
_Rule = Callable[[Weight], int]


def _is_fused(optimizer: OptimizerConfig) -> bool:
    quantised = any(word in optimizer.optim for word in ("8bit", "32bit", "bnb", "ademamix"))
    return (quantised or optimizer.optim == "adamw_torch_fused") and _method(optimizer) is None


def _moments(count: float) -> _Rule:
    """Moments in the format of the weight."""
    return lambda weight: round(count * weight.numbers) * weight.itemsize


def _wide(count: float) -> _Rule:
    """Moments in float32."""
    return lambda weight: round(count * weight.numbers) * 4


def _quantised(count: int, smallest: int) -> _Rule:
    """A byte for each number of a moment and a float32 for each block of 256; small weights have moments in float32."""
    def of(weight: Weight) -> int:
        if weight.numbers < smallest:
            return 4 * count * weight.numbers
        return count * (weight.numbers + 4 * math.ceil(weight.numbers / _QUANTISED_BLOCK))

    return of


def _rule(optimizer: OptimizerConfig) -> _Rule:
    given: Mapping[str, Any] = optimizer.optim_args or {}
    name = optimizer.optim
    by_name: Mapping[str, _Rule] = {
        "sgd": _moments(1 if given.get("momentum") else 0), "adagrad": _moments(1), "lamb": _wide(2),
        "rmsprop": _moments(1 + bool(given.get("momentum")) + bool(given.get("centered"))),
        "adafactor": lambda weight: _factored(weight) + (4 * weight.numbers if given.get("beta1") is not None else 0)}
    if name in by_name:
        return by_name[name]
    if name in ("adamw_torch", "adamw_torch_fused"):
        return _moments(2)
    count = 3 if "ademamix" in name else 1 if "lion" in name or "rmsprop" in name else 2
    return _quantised(count, int(given.get("min_8bit_size", _QUANTISED_FROM))) if "8bit" in name else _wide(count)


def _factored(weight: Weight) -> int:
    """Row and column means in float32 (Shazeer and Stern 2018, section 3); of a vector all of it."""
    if len(weight.shape) < 2:
        return 4 * weight.numbers
    return 4 * (math.prod(weight.shape[:-1]) + math.prod(weight.shape[:-2]) * weight.shape[-1])


def _method(optimizer: OptimizerConfig) -> _Rule | None:
    """What stands in for AdamW, if something does."""
    if optimizer.use_galore:
        return lambda weight: _projected(weight, optimizer)
    if optimizer.use_badam:
        share = optimizer.badam_update_ratio if optimizer.badam_mode == "ratio" else 1.0
        return _wide(2 * share)
    if optimizer.use_adam_mini:
        return lambda weight: 4 * weight.numbers + (4 * weight.shape[0] if len(weight.shape) > 1 else 4)
    return None


def _projected(weight: Weight, optimizer: OptimizerConfig) -> int:
    """Two moments of the projected gradient and the projection (Zhao et al. 2024); other weights than matrices as with AdamW."""
    if len(weight.shape) != 2 or not weight.is_matrix:
        return 8 * weight.numbers
    rows, columns = weight.shape
    rank = min(optimizer.galore_rank, rows, columns)
    if optimizer.galore_proj_type == "full":
        return 4 * (2 * rank * rank + rank * (rows + columns))
    on_rows = {"left": True, "right": False, "std": rows < columns, "reverse_std": rows >= columns}[optimizer.galore_proj_type]
    kept, projected = (columns, rows) if on_rows else (rows, columns)
    return 4 * (2 * rank * kept + rank * projected)

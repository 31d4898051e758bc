"""Finds the module in which a number first stops being finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from tunewright.engine.health import demand_finite
from tunewright.engine.hooks import StepHook

if TYPE_CHECKING:
    from torch import nn

    from tunewright.engine.health import Suspects
    from tunewright.runtime import Ranks


class OverflowWatch(StepHook):
    """Looks at every module's output in training. It waits for the device after each, so it is for finding a fault only."""

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        self._ranks = ranks
        self._found: tuple[str, float] | None = None
        for name, module in model.named_modules():
            module.register_forward_hook(self._looking_at(name or "the model"))

    def inspect(self, suspects: Suspects) -> None:
        """Refuse the step, on all ranks, if a module of any rank gave a number that is not finite."""
        found = [one for one in self._ranks.gather_objects(self._found) if one is not None]
        if found:
            place, value = found[0]
            demand_finite(f"output of {place}", float(value), suspects)

    def _looking_at(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._found is None and module.training:
                strange = next((value for value in map(_strange, _tensors(output)) if value is not None), None)
                if strange is not None:
                    largest = max((float(one.detach().abs().max()) for one in _tensors(inputs) if one.numel()), default=math.nan)
                    self._found = (f"{name} ({type(module).__name__}, largest input {largest:.3g})", strange)

        return look


def _strange(tensor: torch.Tensor) -> float | None:
    """A number of the tensor that is not finite, if there is one; an infinite one before a NaN."""
    if bool(torch.isfinite(tensor).all()):
        return None
    detached = tensor.detach()
    return float(detached[torch.isinf(detached)][0]) if bool(torch.isinf(detached).any()) else math.nan


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors of real numbers in a module's input or output."""
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)

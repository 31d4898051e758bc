"""Which activations a run recomputes in the backward pass: all, those of some modules, or, for the length of a plan, either."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from tunewright.adapters.trainable import enable_gradient_checkpointing
from tunewright.kernels.recompute import LAYERS, keep, recompute

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from tunewright.config.optimization import PrecisionConfig


def recompute_as_asked(model: nn.Module, precision: PrecisionConfig) -> str:
    """Recompute every decoder layer, or the modules of `recompute_modules`; says which. Raises `InputError` for a pattern without any."""
    if precision.recompute_modules == LAYERS:
        enable_gradient_checkpointing(model, precision.use_reentrant_gc)
        return "activations of every decoder layer are recomputed"
    number = recompute(model, precision.recompute_modules)
    return f"activations of {number} modules are recomputed ({', '.join(precision.recompute_modules)})"


@contextmanager
def switched(model: nn.Module, precision: PrecisionConfig, *, on: bool) -> Iterator[None]:
    """Inside, activations are recomputed as the run would do it, or all kept."""
    if not on:
        yield
        return
    recompute_as_asked(model, precision)
    try:
        yield
    finally:
        if precision.recompute_modules == LAYERS:
            base = cast("PreTrainedModel", model)
            base.activation_checkpointing_disable()
            base.disable_input_require_grads()
        else:
            keep(model)

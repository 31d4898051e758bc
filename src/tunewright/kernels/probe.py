"""A forward pass that only looks: a few tokens, no gradient, and no trace in modes or random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

TOLERANCE: Final = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 5e-3}
"""Largest difference of a fast path from the model's own, relative to the largest number; float64 models round to float32 inside norms."""


LOG_PROB_TOLERANCE: Final = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""How far log-probabilities may be apart that are the same in exact numbers, by the number format of the model."""


def probe_tokens(model: nn.Module, count: int = 4) -> Tensor:
    """[1, count] token ids on the model's device; every vocabulary has them."""
    return torch.arange(count, device=next(model.parameters()).device).unsqueeze(0)


@contextmanager
def quiet_run(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in evaluation mode and nothing is differentiated; afterwards every module's mode is as it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, training in modes.items():
            module.training = training

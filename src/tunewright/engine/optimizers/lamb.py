"""LAMB (You et al. 2020, arXiv 1904.00962, algorithm 2): Adam's step, scaled for each weight to a share of the weight's own norm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tunewright.engine.optimizers.adam import EachByItself, adam_direction, fresh

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from tunewright.config.optimization import OptimizerConfig
    from tunewright.engine.optimizers.groups import Group


class Lamb(EachByItself):
    """r = m^ / (sqrt(v^) + epsilon) + decay w; w <- w - rate (|w| / |r|) r. State in float32.

    The paper's phi bounds the norm of w; here it is the ratio |w| / |r| that `max_trust_ratio` bounds, if given.
    """

    def __init__(self, groups: list[Group], config: OptimizerConfig, max_trust_ratio: float = float("inf")) -> None:
        super().__init__(groups, config)
        self.max_trust_ratio = max_trust_ratio

    def update(self, weight: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """One step of algorithm 2."""
        if not state:
            state.update(fresh(gradient))
        direction = adam_direction(state, gradient.float(), self.adam).add_(weight.float(), alpha=group["weight_decay"])
        ratio = trust_ratio(weight.float(), direction).clamp(max=self.max_trust_ratio)
        weight.sub_((group["lr"] * ratio * direction).to(weight.dtype))


def trust_ratio(weight: Tensor, direction: Tensor) -> Tensor:
    """|w| / |r|, or 1 where one of them is zero -> a number."""
    size, length = weight.norm(), direction.norm()
    return torch.where((size > 0) & (length > 0), size / length, torch.ones_like(size))


def build(groups: list[Group], config: OptimizerConfig) -> Optimizer:
    """`Lamb`; `optim_args`: max_trust_ratio."""
    return Lamb(groups, config, **dict(config.optim_args or {}))

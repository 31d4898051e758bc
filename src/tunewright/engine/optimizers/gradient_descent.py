"""SGD, Adagrad and RMSprop: torch's own, with torch's defaults for what `optim_args` leaves out.

None of them reads adam_beta1, adam_beta2 or adam_epsilon. Their weight decay is the older kind: `weight_decay` times the weight is
added to the gradient, and so passes through momentum and scaling (Loshchilov & Hutter 2017 call it L2 regularisation).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from tunewright.config.optimization import OptimizerConfig
    from tunewright.engine.optimizers.groups import Group


def build_sgd(groups: list[Group], config: OptimizerConfig) -> Optimizer:
    """torch.optim.SGD; `optim_args`: momentum, dampening, nesterov."""
    return torch.optim.SGD(groups, lr=config.learning_rate, weight_decay=config.weight_decay, **_given(config))


def build_adagrad(groups: list[Group], config: OptimizerConfig) -> Optimizer:
    """torch.optim.Adagrad (Duchi et al. 2011); `optim_args`: lr_decay, initial_accumulator_value, eps."""
    return torch.optim.Adagrad(groups, lr=config.learning_rate, weight_decay=config.weight_decay, **_given(config))


def build_rmsprop(groups: list[Group], config: OptimizerConfig) -> Optimizer:
    """torch.optim.RMSprop (Hinton 2012); `optim_args`: alpha, eps, momentum, centered."""
    return torch.optim.RMSprop(groups, lr=config.learning_rate, weight_decay=config.weight_decay, **_given(config))


def _given(config: OptimizerConfig) -> dict[str, Any]:
    return dict(config.optim_args or {})

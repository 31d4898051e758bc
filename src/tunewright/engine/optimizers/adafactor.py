"""Adafactor (Shazeer & Stern 2018), transformers' own with the settings its Trainer uses.

That one and not torch.optim.Adafactor, because users compare with it and the two clip and scale differently. The learning
rate is ours (no relative steps), `scale_parameter` is off unless asked for; adam_* parameters are not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from tunewright.config.optimization import OptimizerConfig
    from tunewright.engine.optimizers.groups import Group


def build(groups: list[Group], config: OptimizerConfig) -> Optimizer:
    """transformers.optimization.Adafactor; `optim_args`: eps, clip_threshold, decay_rate, beta1, scale_parameter."""
    from transformers.optimization import Adafactor

    arguments: dict[str, Any] = {"scale_parameter": False, **(config.optim_args or {})}
    if "eps" in arguments:
        arguments["eps"] = tuple(arguments["eps"])
    optimizer: Optimizer = Adafactor(groups, lr=config.learning_rate, weight_decay=config.weight_decay, relative_step=False,
                                     warmup_init=False, **arguments)
    return optimizer

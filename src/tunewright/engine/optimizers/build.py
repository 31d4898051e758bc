"""The optimizer of a run, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tunewright.engine.optimizers.arguments import check_arguments
from tunewright.engine.optimizers.groups import Group, Rates, parameter_groups
from tunewright.errors import InputError
from tunewright.registry import Entry, Registry

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from tunewright.config.optimization import OptimizerConfig
    from tunewright.config.tuning import LoraConfig

OPTIMIZERS: Final = Registry("optimizer", (
    Entry("adamw_torch", "tunewright.engine.optimizers.adamw:build_plain", "AdamW, one kernel per operation."),
    Entry("adamw_torch_fused", "tunewright.engine.optimizers.adamw:build_fused", "AdamW, one kernel per step."),
    Entry("adafactor", "tunewright.engine.optimizers.adafactor:build", "Adafactor: second moments as row and column means."),
))
"""Each entry is a function of (groups, OptimizerConfig)."""

Builder = Callable[[list[Group], "OptimizerConfig"], "Optimizer"]


def build_optimizer(model: nn.Module, optimizer: OptimizerConfig, lora: LoraConfig) -> Optimizer:
    """The optimizer over all trainable parameters of `model`, in the groups of `groups.parameter_groups`.

    Raises InputError for an argument in `optim_args` that the optimizer does not have, and for a model with nothing to train.
    """
    check_arguments(optimizer.optim, optimizer.optim_args)
    rates = Rates(optimizer.learning_rate, optimizer.weight_decay, lora.loraplus_lr_ratio, lora.loraplus_lr_embedding)
    groups = parameter_groups(model, rates)
    if not groups:
        raise InputError("no weight of the model is trainable", mend="choose other modules to train")
    builder: Builder = OPTIMIZERS.load(optimizer.optim)
    return builder(groups, optimizer)

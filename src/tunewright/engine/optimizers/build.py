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

_HERE: Final = "tunewright.engine.optimizers"
_ADAMW: Final = f"{_HERE}.bitsandbytes:build_adamw"
_LION: Final = f"{_HERE}.bitsandbytes:build_lion"
_ADEMAMIX: Final = f"{_HERE}.bitsandbytes:build_ademamix"
_RMSPROP: Final = f"{_HERE}.bitsandbytes:build_rmsprop"

OPTIMIZERS: Final = Registry("optimizer", (
    Entry("adamw_torch", f"{_HERE}.adamw:build_plain", "AdamW, one kernel per operation."),
    Entry("adamw_torch_fused", f"{_HERE}.adamw:build_fused", "AdamW, one kernel per step."),
    Entry("adafactor", f"{_HERE}.adafactor:build", "Adafactor: second moments as row and column means."),
    Entry("sgd", f"{_HERE}.gradient_descent:build_sgd", "Stochastic gradient descent, with momentum if asked for."),
    Entry("adagrad", f"{_HERE}.gradient_descent:build_adagrad", "Adagrad: rates fall with the sum of squared gradients."),
    Entry("rmsprop", f"{_HERE}.gradient_descent:build_rmsprop", "RMSprop: rates follow the mean of squared gradients."),
    Entry("lamb", f"{_HERE}.lamb:build", "LAMB: Adam's step as a share of each weight's norm."),
    Entry("adamw_8bit", _ADAMW, "AdamW with moments in 8 bits.", "quant"),
    Entry("adamw_bnb_8bit", _ADAMW, "The same as adamw_8bit.", "quant"),
    Entry("paged_adamw_8bit", _ADAMW, "The same, in pages that may leave the GPU.", "quant"),
    Entry("paged_adamw_32bit", _ADAMW, "AdamW with moments in 32 bits, in pages that may leave the GPU.", "quant"),
    Entry("lion_8bit", _LION, "Lion with its moment in 8 bits.", "quant"),
    Entry("lion_32bit", _LION, "Lion: the sign of a moment.", "quant"),
    Entry("paged_lion_8bit", _LION, "Lion in 8 bits, in pages that may leave the GPU.", "quant"),
    Entry("paged_lion_32bit", _LION, "Lion in 32 bits, in pages that may leave the GPU.", "quant"),
    Entry("ademamix", _ADEMAMIX, "AdEMAMix: a fast and a slow first moment.", "quant"),
    Entry("ademamix_8bit", _ADEMAMIX, "AdEMAMix with moments in 8 bits.", "quant"),
    Entry("paged_ademamix_32bit", _ADEMAMIX, "AdEMAMix in pages that may leave the GPU.", "quant"),
    Entry("paged_ademamix_8bit", _ADEMAMIX, "AdEMAMix in 8 bits, in pages that may leave the GPU.", "quant"),
    Entry("rmsprop_bnb", _RMSPROP, "RMSprop of bitsandbytes.", "quant"),
    Entry("rmsprop_bnb_8bit", _RMSPROP, "RMSprop with its moment in 8 bits.", "quant"),
    Entry("rmsprop_bnb_32bit", _RMSPROP, "The same as rmsprop_bnb.", "quant"),
))
"""Each entry is a function of (groups, OptimizerConfig)."""

METHODS: Final = Registry("method of optimisation", (
    Entry("galore", f"{_HERE}.galore:build", "AdamW on gradients projected to low rank."),
    Entry("badam layer", f"{_HERE}.badam:build_layers", "AdamW on one decoder layer at a time."),
    Entry("badam ratio", f"{_HERE}.badam:build_ratio", "AdamW on a share of every weight at a time."),
    Entry("adam-mini", f"{_HERE}.adam_mini:build", "AdamW with one second moment per block."),
))
"""What stands in for AdamW when its switch is on. Each entry is a function of (model, groups, OptimizerConfig, seed)."""

Builder = Callable[[list[Group], "OptimizerConfig"], "Optimizer"]
MethodBuilder = Callable[["nn.Module", list[Group], "OptimizerConfig", int], "Optimizer"]


def build_optimizer(model: nn.Module, optimizer: OptimizerConfig, lora: LoraConfig, seed: int = 0) -> Optimizer:
    """The optimizer over all trainable parameters of `model`, in the groups of `groups.parameter_groups`.

    `seed` decides what BAdam draws. Raises InputError for an argument in `optim_args` that the optimizer does not have, for a model
    with nothing to train, and for a package that is not installed.
    """
    check_arguments(optimizer.optim, optimizer.optim_args)
    rates = Rates(optimizer.learning_rate, optimizer.weight_decay, lora.loraplus_lr_ratio, lora.loraplus_lr_embedding)
    groups = parameter_groups(model, rates)
    if not groups:
        raise InputError("no weight of the model is trainable", mend="choose other modules to train")
    method = method_of(optimizer)
    if method is not None:
        build_method: MethodBuilder = METHODS.load(method)
        return build_method(model, groups, optimizer, seed)
    build: Builder = OPTIMIZERS.load(optimizer.optim)
    return build(groups, optimizer)


def method_of(optimizer: OptimizerConfig) -> str | None:
    """The name in METHODS of what stands in for AdamW, None if nothing does."""
    if optimizer.use_galore:
        return "galore"
    if optimizer.use_badam:
        return f"badam {optimizer.badam_mode}"
    return "adam-mini" if optimizer.use_adam_mini else None

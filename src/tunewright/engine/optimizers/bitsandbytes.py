"""Optimizers of bitsandbytes (Dettmers et al. 2022, arXiv 2110.02861): state in 8 bits, or pages that may leave the GPU.

The state of weights with fewer than 4,096 numbers stays in 32 bits (`optim_args: min_8bit_size` moves that border). On CPU there are
no pages: a paged optimizer is the same as the one without. Lion (Chen et al. 2023) and AdEMAMix (Pagliardini et al. 2024) read
adam_beta1 and adam_beta2; Lion has no epsilon; RMSprop reads none of them but its own `optim_args`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from tunewright.config.optimization import OptimizerConfig
    from tunewright.engine.optimizers.groups import Group


def build_adamw(groups: list[Group], config: OptimizerConfig) -> Optimizer:
    """AdamW; `optim_args` of the 8-bit ones: min_8bit_size."""
    return _paged_where_possible(_library().AdamW(
        groups, **_rates(config), **_betas(config), eps=config.adam_epsilon, **_format(config.optim), **_given(config)))


def build_lion(groups: list[Group], config: OptimizerConfig) -> Optimizer:
    """Lion; `optim_args` of the 8-bit ones: min_8bit_size."""
    return _paged_where_possible(_library().Lion(
        groups, **_rates(config), **_betas(config), **_format(config.optim), **_given(config)))


def build_ademamix(groups: list[Group], config: OptimizerConfig) -> Optimizer:
    """AdEMAMix; `optim_args`: beta3, alpha, t_alpha, t_beta3, and for the 8-bit ones min_8bit_size."""
    given = _given(config)
    betas = (config.adam_beta1, config.adam_beta2, given.pop("beta3", 0.9999))
    return _paged_where_possible(_library().AdEMAMix(
        groups, **_rates(config), betas=betas, eps=config.adam_epsilon, **_format(config.optim), **given))


def build_rmsprop(groups: list[Group], config: OptimizerConfig) -> Optimizer:
    """RMSprop; `optim_args`: alpha, eps, and for the 8-bit one min_8bit_size."""
    return _paged_where_possible(_library().RMSprop(groups, **_rates(config), optim_bits=_bits(config.optim), **_given(config)))


def _library() -> Any:
    """`bitsandbytes.optim`; `check_arguments` has seen that the package is there."""
    import bitsandbytes

    return bitsandbytes.optim


def _paged_where_possible(optimizer: Any) -> Optimizer:
    """Turns pages off before the first step where the weights are not on a GPU: AdEMAMix of bitsandbytes 0.50 would fail there."""
    def on_the_gpu(stepping: Any, args: Any, kwargs: Any) -> None:
        stepping.is_paged = stepping.is_paged and stepping.param_groups[0]["params"][0].is_cuda

    optimizer.register_step_pre_hook(on_the_gpu)
    built: Optimizer = optimizer
    return built


def _rates(config: OptimizerConfig) -> dict[str, float]:
    return {"lr": config.learning_rate, "weight_decay": config.weight_decay}


def _betas(config: OptimizerConfig) -> dict[str, tuple[float, float]]:
    return {"betas": (config.adam_beta1, config.adam_beta2)}


def _format(optim: str) -> dict[str, Any]:
    return {"optim_bits": _bits(optim), "is_paged": optim.startswith("paged_")}


def _bits(optim: str) -> int:
    return 8 if optim.endswith("8bit") else 32


def _given(config: OptimizerConfig) -> dict[str, Any]:
    return dict(config.optim_args or {})

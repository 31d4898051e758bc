"""Liger's Triton kernels, in a model that is on an NVIDIA GPU. The only module that knows the package.

Liger changes norms and gated activations in the instances of this model. In the file of the model's family it replaces their classes and
the function of rotary positions too, for the whole process: models of the family that are made later have them as well. Liger's losses
are not used: they want labels inside the model, and ours takes hidden states.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from tunewright.config.kernels import LIGER_LOSSES
from tunewright.config.spelling import did_you_mean, nearest
from tunewright.errors import InputError, missing_package

if TYPE_CHECKING:
    from torch import nn

    from tunewright.config.kernels import KernelsConfig

_PACKAGE: Final = "liger_kernel"
ROPE: Final = "rope"


def demand_package(parameter: str) -> None:
    """Raise `InputError` if liger-kernel, which `parameter` asks for, is absent."""
    if find_spec(_PACKAGE) is None:
        raise missing_package("liger-kernel", feature="training with Liger's kernels", parameter=parameter, extra="liger")


def asked_by(settings: KernelsConfig) -> str | None:
    """The parameter that asks for Liger, if one does."""
    if settings.enable_liger_kernel:
        return "enable_liger_kernel"
    return "use_fused_rotary_pos_emb" if settings.use_fused_rotary_pos_emb else None


def apply_kernels(model: nn.Module, settings: KernelsConfig) -> tuple[str, ...]:
    """Put the kernels that are asked for into the model; returns their names. The model may be wrapped in an adapter.

    Raises `InputError` for a family of models or a kernel that Liger does not have.
    """
    parameter = asked_by(settings)
    if parameter is None:
        return ()
    demand_package(parameter)
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    family = base.config.model_type
    if family not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise InputError(f"{parameter}: Liger has no kernels for {family} models", mend="remove it")
    apply = MODEL_TYPE_TO_APPLY_LIGER_FN[family]
    chosen = choose(_offered(apply), settings, family)
    apply(model=base, **chosen)
    return tuple(name for name, is_on in chosen.items() if is_on)


def choose(offered: Mapping[str, bool], settings: KernelsConfig, family: str) -> dict[str, bool]:
    """Kernel -> whether it is used, for all that are offered (with Liger's own choice): losses never, the rest as the run says."""
    if not settings.enable_liger_kernel:
        if ROPE not in offered:
            raise InputError(f"use_fused_rotary_pos_emb: Liger has no kernel of rotary positions for {family} models", mend="remove it")
        return {name: name == ROPE for name in offered}
    given = settings.liger_kernel_config or {}
    for name in given:
        if name not in offered:
            known = [one for one in offered if one not in LIGER_LOSSES]
            raise InputError(f"liger_kernel_config: '{name}' is not one of Liger's kernels for {family} models: {', '.join(known)}",
                             mend=did_you_mean(nearest(name, known), "'"))
    rope = {ROPE: True} if settings.use_fused_rotary_pos_emb and ROPE in offered else {}
    return {**offered, **given, **rope} | {name: False for name in LIGER_LOSSES if name in offered}


def _offered(apply: Any) -> dict[str, bool]:
    """The switches that Liger has for a family, with its defaults."""
    return {name: one.default for name, one in inspect.signature(apply).parameters.items() if isinstance(one.default, bool)}

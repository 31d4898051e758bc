"""What `optim_args` may hold for each optimizer. Standard library only, so that `check` can use it."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from tunewright.config.optimizer_names import BITSANDBYTES
from tunewright.errors import refuse

Argument = tuple[str, Callable[[Any], bool]]
"""What is allowed in words, and its test."""


def _switch(value: Any) -> bool:
    return isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _not_negative(value: Any) -> bool:
    return _number(value) and value >= 0


def _negative(value: Any) -> bool:
    return _number(value) and value < 0


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value < 1


def _positive_share(value: Any) -> bool:
    return _share(value) and value > 0


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _two_positive(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(_positive(one) for one in value)


_SWITCH: Final[Argument] = ("true or false", _switch)
_POSITIVE: Final[Argument] = ("a number above 0", _positive)
_NOT_NEGATIVE: Final[Argument] = ("a number >= 0", _not_negative)
_SHARE: Final[Argument] = ("a number from 0 to below 1", _share)
_COUNT: Final[Argument] = ("an integer >= 1", _count)
_EIGHT_BIT: Final = {"min_8bit_size": _COUNT}
_ADEMAMIX: Final = {"beta3": _SHARE, "alpha": _NOT_NEGATIVE, "t_alpha": _COUNT, "t_beta3": _COUNT}
_RMSPROP_BNB: Final = {"alpha": ("a number between 0 and 1", _positive_share), "eps": _POSITIVE}

ARGUMENTS: Final[Mapping[str, Mapping[str, Argument]]] = {
    "adamw_torch": {"amsgrad": _SWITCH, "foreach": _SWITCH},
    "adamw_torch_fused": {"amsgrad": _SWITCH},
    "adafactor": {"eps": ("two numbers above 0", _two_positive), "clip_threshold": _POSITIVE,
                  "decay_rate": ("a number below 0", _negative), "beta1": _SHARE, "scale_parameter": _SWITCH},
    "sgd": {"momentum": _SHARE, "dampening": _SHARE, "nesterov": _SWITCH},
    "adagrad": {"lr_decay": _NOT_NEGATIVE, "initial_accumulator_value": _NOT_NEGATIVE, "eps": _POSITIVE},
    "rmsprop": {"alpha": _SHARE, "eps": _POSITIVE, "momentum": _SHARE, "centered": _SWITCH},
    "lamb": {"max_trust_ratio": _POSITIVE},
    "adamw_8bit": _EIGHT_BIT, "adamw_bnb_8bit": _EIGHT_BIT, "paged_adamw_8bit": _EIGHT_BIT, "paged_adamw_32bit": {},
    "lion_8bit": _EIGHT_BIT, "lion_32bit": {}, "paged_lion_8bit": _EIGHT_BIT, "paged_lion_32bit": {},
    "ademamix": _ADEMAMIX, "ademamix_8bit": {**_ADEMAMIX, **_EIGHT_BIT},
    "paged_ademamix_32bit": _ADEMAMIX, "paged_ademamix_8bit": {**_ADEMAMIX, **_EIGHT_BIT},
    "rmsprop_bnb": _RMSPROP_BNB, "rmsprop_bnb_8bit": {**_RMSPROP_BNB, **_EIGHT_BIT}, "rmsprop_bnb_32bit": _RMSPROP_BNB,
}
"""Per optimizer, the arguments that `optim_args` may hold."""

_ELSEWHERE: Final = {
    "lr": "learning_rate", "weight_decay": "weight_decay", "betas": "adam_beta1 and adam_beta2", "relative_step": "learning_rate",
    "warmup_init": "warmup_steps"}


def check_arguments(optim: str, given: Mapping[str, Any] | None) -> None:
    """Raise InputError, naming the key, for an argument that the optimizer does not have or whose value does not fit.

    Also where the package that computes the optimizer is not installed, which is told here so that `check` can tell it.
    """
    if optim in BITSANDBYTES and importlib.util.find_spec("bitsandbytes") is None:
        refuse(f"optim: {optim} needs the package `bitsandbytes`, which is not installed",
               mend='run: pip install "tunewright[quant]", or choose adamw_torch')
    known = ARGUMENTS[optim]
    for key, value in (given or {}).items():
        if key in _ELSEWHERE:
            refuse(f"optim_args: `{key}` has a parameter of its own", mend=f"use {_ELSEWHERE[key]}")
        if key not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            refuse(f"optim_args: `{key}` is no argument of {optim}", mend=takes)
        words, fits = known[key]
        if not fits(value):
            refuse(f"optim_args: {key} is {value!r}", mend=f"use {words}")
    if given and given.get("nesterov") and (not given.get("momentum") or given.get("dampening")):
        refuse("optim_args: nesterov needs momentum and no dampening", mend="add momentum=0.9, without dampening")

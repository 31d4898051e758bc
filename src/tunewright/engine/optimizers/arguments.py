"""What `optim_args` may hold for each optimizer. Standard library only, so that `check` can use it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from tunewright.errors import refuse


def _switch(value: Any) -> bool:
    return isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _negative(value: Any) -> bool:
    return _number(value) and value < 0


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value < 1


def _two_positive(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(_positive(one) for one in value)


_ADAMW: Final = {"amsgrad": ("true or false", _switch)}

ARGUMENTS: Final[Mapping[str, Mapping[str, tuple[str, Callable[[Any], bool]]]]] = {
    "adamw_torch": {**_ADAMW, "foreach": ("true or false", _switch)},
    "adamw_torch_fused": _ADAMW,
    "adafactor": {
        "eps": ("two numbers above 0", _two_positive),
        "clip_threshold": ("a number above 0", _positive),
        "decay_rate": ("a number below 0", _negative),
        "beta1": ("a number from 0 to below 1", _share),
        "scale_parameter": ("true or false", _switch),
    },
}
"""Per optimizer: argument -> what is allowed in words, and its test."""

_ELSEWHERE: Final = {
    "lr": "learning_rate", "weight_decay": "weight_decay", "betas": "adam_beta1 and adam_beta2", "relative_step": "learning_rate",
    "warmup_init": "warmup_steps"}


def check_arguments(optim: str, given: Mapping[str, Any] | None) -> None:
    """Raise InputError, naming the key, for an argument that the optimizer does not have or whose value does not fit."""
    known = ARGUMENTS[optim]
    for key, value in (given or {}).items():
        if key in _ELSEWHERE:
            refuse(f"optim_args: `{key}` has a parameter of its own", mend=f"use {_ELSEWHERE[key]}")
        if key not in known:
            refuse(f"optim_args: `{key}` is no argument of {optim}", mend=f"it takes {', '.join(known)}")
        words, fits = known[key]
        if not fits(value):
            refuse(f"optim_args: {key} is {value!r}", mend=f"use {words}")

"""Selective recomputation of activations: which modules are run again in the backward pass instead of keeping what they compute.

Naive equivalent: the module's own forward. Only memory and time differ (Chen et al. 2016, arXiv 1604.06174). torch's reentrant form is not
used: it sees gradients of positional arguments only, and models hand their parts named ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tunewright.errors import require

LAYERS: Final = ("model.layers.{*}",)
"""Every decoder layer, whatever the family calls them."""
_BRACES: Final = re.compile(r"\\\{([^{}]*)\\\}")


def matching_modules(model: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Module]:
    """The modules whose names, or ends of names, match a pattern: `{*}` is any number, `{0-11}` those from 0 to 11, `{0,2}` two of them.

    A module inside another one that matches is left out. Raises `InputError` for a pattern that matches none, that matches a single
    layer of weights, or whose braces hold something else.
    """
    found: dict[str, nn.Module] = {}
    for pattern in patterns:
        allowed, expression = _compiled(pattern)
        fits = {name: module for name, module in model.named_modules() if _fits(expression.fullmatch(name), allowed)}
        require(bool(fits), f"recompute_modules: '{pattern}' matches no module of this model",
                mend="leave recompute_modules out to recompute every decoder layer")
        single = [name for name, module in fits.items() if next(module.children(), None) is None or hasattr(module, "base_layer")]
        require(not single, f"recompute_modules: '{pattern}' matches {single[0] if single else ''}, a single layer of weights",
                mend="name a module that holds several, such as model.layers.{*}.mlp")
        found |= fits
    inner = {name for name in found for other in found if name.startswith(f"{other}.")}
    return {name: module for name, module in found.items() if name not in inner}


def recompute(model: nn.Module, patterns: Sequence[str]) -> int:
    """Run the modules again in the backward pass; returns how many they are. Raises as `matching_modules`."""
    modules = matching_modules(model, patterns)
    for module in modules.values():
        inner: Callable[..., Any] = module.__dict__.get("forward") or partial(type(module).forward, module)
        module.forward = partial(_recomputed, module, inner)
    return len(modules)


def keep(model: nn.Module) -> None:
    """Undo `recompute`."""
    for module in model.modules():
        forward = module.__dict__.get("forward")
        if isinstance(forward, partial) and forward.func is _recomputed:
            inner = forward.args[1]
            if isinstance(inner, partial) and inner.func is type(module).forward:
                del module.__dict__["forward"]
            else:
                module.forward = inner


def _recomputed(module: nn.Module, inner: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
    if not (module.training and torch.is_grad_enabled()):
        return inner(*arguments, **settings)
    return checkpoint(inner, *arguments, use_reentrant=False, **settings)


def _compiled(pattern: str) -> tuple[list[frozenset[int] | None], re.Pattern[str]]:
    """The numbers that each pair of braces allows, None for any, and the pattern with a group for each."""
    allowed = [_numbers(found.group(1).replace("\\", ""), pattern) for found in _BRACES.finditer(re.escape(pattern))]
    return allowed, re.compile(r"(?:.*\.)?" + _BRACES.sub(lambda _: r"(\d+)", re.escape(pattern)))


def _numbers(inside: str, pattern: str) -> frozenset[int] | None:
    if inside.strip() in ("", "*"):
        return None
    numbers: set[int] = set()
    for part in inside.split(","):
        ends = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        require(ends is not None, f"recompute_modules: '{pattern}' has {{{inside}}}, which is no range of numbers",
                mend="write {*}, {0-11} or {0,2,4}")
        if ends is not None:
            numbers |= set(range(int(ends[1]), int(ends[2] or ends[1]) + 1))
    return frozenset(numbers)


def _fits(found: re.Match[str] | None, allowed: Sequence[frozenset[int] | None]) -> bool:
    return found is not None and all(numbers is None or int(one) in numbers for one, numbers in zip(found.groups(), allowed, strict=True))

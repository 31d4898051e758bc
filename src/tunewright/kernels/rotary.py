"""Rotary positions with two passes over queries and keys, where models' own code takes five and its gradient eight.

Naive equivalent (Su et al. 2021, equation 34, with the pairs (i, i + D/2)): y = x cos + rotate_half(x) sin, rotate_half(x) = (-x2, x1) of
x = (x1, x2). Here each half of x is added to its own multiple of the other, in place.

Every family of models has this function under one name in the file of its attention. No file and no class is changed: an instance gets the
forward of its class with that one name bound to ours, after ours has been shown to be that family's function.

Axes: B rows, H heads, T positions, D head width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tunewright.kernels.probe import TOLERANCE
from tunewright.kernels.taken import REPLACED, Taken, counted
from tunewright.kernels.verdicts import Ask, prove_anew

NAME: Final = "apply_rotary_pos_emb"
"""What transformers calls it, whatever the family."""
_WIDTH: Final = 8
"""Of what a function is tried on for a model that does not say what it turns."""
Rotation = Callable[..., tuple[Tensor, Tensor]]


def rotate(own: Rotation, *given: Any, **settings: Any) -> tuple[Tensor, Tensor]:
    """query, key [B, H, T, D], cos and sin [B, T, D] -> both, rotated. `own` is called for anything else: axes in another order, widths or
    number formats that differ."""
    if len(given) != 4 or settings:
        return own(*given, **settings)
    query, key, cos, sin = given
    if len({one.dtype for one in given}) > 1 or not query.shape[-1] == key.shape[-1] == cos.shape[-1] or cos.dim() != query.dim() - 1:
        return own(query, key, cos, sin)
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    return rotated(query, cos, sin), rotated(key, cos, sin)


def rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """[..., D], with cos and sin that broadcast to it -> [..., D]. Not differentiable in cos and sin."""
    found: Tensor = _Rotated.apply(states, cos, sin)
    return found


class _Rotated(torch.autograd.Function):
    """y1 = x1 c1 - x2 s1, y2 = x2 c2 + x1 s2; dx1 = dy1 c1 + dy2 s2, dx2 = dy2 c2 - dy1 s1."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        (first, second), (sin_first, sin_second) = states.chunk(2, -1), sin.chunk(2, -1)
        found = states * cos
        found_first, found_second = found.chunk(2, -1)
        found_first.addcmul_(second, sin_first, value=-1)
        found_second.addcmul_(first, sin_second)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        (first, second), (sin_first, sin_second) = slope.chunk(2, -1), sin.chunk(2, -1)
        found = slope * cos
        found_first, found_second = found.chunk(2, -1)
        found_first.addcmul_(second, sin_second)
        found_second.addcmul_(first, sin_first, value=-1)
        return found, None, None


def switch_over(model: nn.Module, ask: Ask = prove_anew) -> Taken:
    """Let every attention whose rotary positions are these compute them so."""
    return _switch(model, partial(_asked, ask, _widths(model)))


def switch_over_unproven(model: nn.Module) -> Taken:
    """`switch_over` for a model that has shapes and no numbers to try it on, as the planner makes one."""
    return _switch(model, lambda own, module: None)


def _switch(model: nn.Module, disproof: Callable[[Rotation, nn.Module], str | None]) -> Taken:
    chosen: dict[FunctionType, FunctionType | str] = {}
    return counted(_given(module, disproof, chosen) for module in model.modules() if _calls_it(type(module).forward))


def _given(module: nn.Module, disproof: Callable[[Rotation, nn.Module], str | None], chosen: dict[FunctionType, FunctionType | str],
           ) -> str | None:
    """Give an attention the forward that is chosen for its class; or why it keeps its own."""
    if "forward" in module.__dict__:
        return REPLACED
    forward = cast("FunctionType", type(module).forward)
    if forward not in chosen:
        own = cast("Rotation", forward.__globals__.get(NAME))  # whether it is one, _obstacle says
        reason = _obstacle(forward) or disproof(own, module)
        chosen[forward] = _bound_anew(forward, partial(rotate, own)) if reason is None else reason
    found = chosen[forward]
    if isinstance(found, str):
        return found
    module.forward = MethodType(found, module)
    return None


def switch_back(model: nn.Module) -> None:
    """Give all of them their own forward again."""
    for module in model.modules():
        forward = module.__dict__.get("forward")
        if isinstance(forward, MethodType) and isinstance(forward.__func__, FunctionType):
            named = forward.__func__.__globals__.get(NAME)
            if isinstance(named, partial) and named.func is rotate:
                del module.__dict__["forward"]


def _calls_it(forward: Any) -> bool:
    """Whether the code of a forward, a decorator around it aside, calls a function of that name."""
    code = getattr(inspect.unwrap(forward), "__code__", None) if isinstance(forward, FunctionType) else None
    return code is not None and NAME in code.co_names


def _obstacle(forward: FunctionType) -> str | None:
    """Why the name in a forward cannot be bound to ours, or None. A function that another package put there, such as Liger, stays."""
    if hasattr(forward, "__wrapped__"):
        return "their forward is decorated"
    own = forward.__globals__.get(NAME)
    return None if inspect.isfunction(own) and own.__module__ == forward.__module__ else f"{NAME} is not that of their file"


def _bound_anew(forward: FunctionType, ours: Rotation) -> FunctionType:
    """The same code with the name bound to ours."""
    found = FunctionType(forward.__code__, {**forward.__globals__, NAME: ours}, forward.__name__, forward.__defaults__, forward.__closure__)
    found.__kwdefaults__ = forward.__kwdefaults__
    return found


def _widths(model: nn.Module) -> tuple[int, ...]:
    """How many numbers of a head the model turns, twice its frequencies: the head's width, or the part of it that is rotary."""
    found = {2 * buffer.numel() for name, buffer in model.named_buffers() if name.endswith("inv_freq")}
    return tuple(sorted(found)) or (_WIDTH,)


def _asked(ask: Ask, widths: tuple[int, ...], own: Rotation, module: nn.Module) -> str | None:
    weight = next(module.parameters())
    question = f"{NAME} of {own.__module__} at {', '.join(map(str, widths))} in {weight.dtype} on {weight.device.type}"
    return ask(question, lambda: next(filter(None, (_disproof(own, weight, width) for width in widths)), None))


def _disproof(own: Rotation, like: Tensor, width: int) -> str | None:
    """Output and gradients of queries and keys against those of a model's own function, where no two cosines or sines are alike."""
    generator = torch.Generator().manual_seed(0)
    kind = like.dtype if like.is_floating_point() else torch.float32

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(like.device, kind)

    query, key = drawn(1, 2, 3, width).requires_grad_(), drawn(1, 1, 3, width).requires_grad_()
    cos, sin, slopes = drawn(1, 3, width), drawn(1, 3, width), (drawn(1, 2, 3, width), drawn(1, 1, 3, width))
    with torch.enable_grad():
        try:
            theirs = own(query, key, cos, sin)
            wanted = (*theirs, *torch.autograd.grad(theirs, (query, key), slopes))
        except (TypeError, ValueError, RuntimeError, IndexError):
            return "it takes other arguments"
        ours = rotate(own, query, key, cos, sin)
        found = (*ours, *torch.autograd.grad(ours, (query, key), slopes))
    is_same = all(one.dtype == two.dtype and one.shape == two.shape
                  and bool((one - two).abs().max() <= TOLERANCE.get(kind, 1e-5) * two.abs().max())
                  for one, two in zip(found, wanted, strict=True))
    return None if is_same else "it computes something else"

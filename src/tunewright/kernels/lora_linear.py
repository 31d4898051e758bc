"""Linear layers with a LoRA that read the same input (query, key and value; gate and up), as one operation.

Naive equivalent, for each layer i: y_i = x W_i^T + b_i + s_i (x A_i^T) B_i^T (Hu et al. 2021, equation 3). Here the A_i are one matrix, the
update is added onto the product in place, s A x^T is formed once, and the gradient of the shared input is summed inside the
matrix products. Frozen W and b get no gradient; x gets one only where something before it trains.

Axes: T tokens, D width of the input, O_i width of an output, r_i rank of an adapter, R sum of the ranks.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Adapted(NamedTuple):
    """One layer: weight [O, D], bias [O] or None, down [r, D] (A), up [O, r] (B), scaling (s)."""

    weight: Tensor
    bias: Tensor | None
    down: Tensor
    up: Tensor
    scaling: float


def lora_linear(hidden: Tensor, layers: tuple[Adapted, ...]) -> tuple[Tensor, ...]:
    """hidden [..., D] -> one [..., O_i] for each layer. Differentiable in hidden and in every A and B; never in a weight or bias."""
    flat = [part for layer in layers for part in (layer.weight, layer.bias, layer.down, layer.up)]
    found: tuple[Tensor, ...] = _LoraLinear.apply(hidden, tuple(layer.scaling for layer in layers), *flat)
    return found


def lora_linear_slow(hidden: Tensor, layers: tuple[Adapted, ...]) -> tuple[Tensor, ...]:
    """The twin of `lora_linear`, by the equation."""
    return tuple(torch.nn.functional.linear(hidden, one.weight, one.bias) + hidden @ one.down.t() @ one.up.t() * one.scaling
                 for one in layers)


class _LoraLinear(torch.autograd.Function):
    """Saves x, s A x^T and the weights. What has r columns is formed as [r, T]: as [T, r] it takes a CPU up to four times as long."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, scalings: tuple[float, ...], *flat: Tensor | None) -> tuple[Tensor, ...]:
        layers = _layers(flat, scalings)
        rows = hidden.reshape(-1, hidden.shape[-1])
        low = _joined([layer.down for layer in layers]) @ rows.t()
        for layer, place in zip(layers, _places(layers), strict=True):
            low[place].mul_(layer.scaling)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(rows, low, *flat)
        ctx.scalings, ctx.shape = scalings, hidden.shape
        return tuple(_forward(rows, layer, low[place]).view(*hidden.shape[:-1], -1)
                     for layer, place in zip(layers, _places(layers), strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Any, ...]:
        rows, low, *flat = ctx.saved_tensors
        layers = _layers(tuple(flat), ctx.scalings)
        down = _joined([layer.down for layer in layers])
        low_slope = torch.zeros_like(low)
        of_rows: Tensor | None = None
        given: list[Tensor | None] = []
        for number, (layer, place, slope) in enumerate(zip(layers, _places(layers), slopes, strict=True)):
            of_up: Tensor | None = None
            if slope is not None:
                slope = slope.reshape(-1, slope.shape[-1])
                torch.mm(layer.up.t(), slope.t(), out=low_slope[place]).mul_(layer.scaling)
                if ctx.needs_input_grad[2 + 4 * number + 3]:
                    of_up = (low[place] @ slope).t()
                if ctx.needs_input_grad[0]:
                    of_rows = slope @ layer.weight if of_rows is None else of_rows.addmm_(slope, layer.weight)
            given += [None, None, None, of_up]
        if any(ctx.needs_input_grad[4::4]):
            of_down = low_slope @ rows
            for number, place in enumerate(_places(layers)):
                given[4 * number + 2] = of_down[place] if ctx.needs_input_grad[4 + 4 * number] else None
        if of_rows is not None:
            of_rows = of_rows.addmm_(low_slope.t(), down).view(ctx.shape)
        return (of_rows, None, *given)


def _forward(rows: Tensor, layer: Adapted, low: Tensor) -> Tensor:
    """x [T, D] and s A x^T [r, T] -> [T, O]."""
    product = rows @ layer.weight.t() if layer.bias is None else torch.addmm(layer.bias, rows, layer.weight.t())
    return product.addmm_(low.t(), layer.up.t())


def _layers(flat: tuple[Tensor | None, ...], scalings: tuple[float, ...]) -> list[Adapted]:
    return [Adapted(flat[4 * i], flat[4 * i + 1], flat[4 * i + 2], flat[4 * i + 3], scaling)  # type: ignore[arg-type]
            for i, scaling in enumerate(scalings)]


def _places(layers: list[Adapted]) -> list[slice]:
    """Where each layer's r_i lie in R."""
    return [slice(*pair) for pair in pairwise(accumulate((layer.down.shape[0] for layer in layers), initial=0))]


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)

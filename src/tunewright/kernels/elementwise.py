"""Normalisation and gated activation with fewer passes over memory.

RMSNorm (Zhang and Sennrich 2019, equation 4): x / sqrt(mean(x^2) + eps) * w. Models write it as six operations; torch has one for GPUs.
SwiGLU (Shazeer 2020, equation 6): silu(gate) * up. Its product is formed in place, and silu(gate) is computed anew in the backward pass
instead of kept. The product itself is what the gradient of the projection behind it needs; where that trains, it is computed anew, too.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, rms_norm, silu


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """gate, up [..., F] -> silu(gate) * up."""
    found: Tensor = _SwiGLU.apply(gate, up)
    return found


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(slope * up, gate), silu(gate).mul_(slope)


class _SwiGLUProjected(torch.autograd.Function):
    """y = p W^T + b with p = silu(gate) up; dW = dy^T p, db = sum of dy, dp = dy W."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(gate, up, weight)
        return linear(silu(gate).mul_(up), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, weight = ctx.saved_tensors
        rows, active = slope.reshape(-1, slope.shape[-1]), silu(gate)
        of_weight = rows.t() @ (active * up).flatten(0, -2) if ctx.needs_input_grad[2] else None
        of_bias = rows.sum(0) if ctx.needs_input_grad[3] else None
        of_product = slope @ weight
        return torch.ops.aten.silu_backward(of_product * up, gate), active.mul_(of_product), of_weight, of_bias


def gated_mlp(module: nn.Module, hidden: Tensor) -> Tensor:
    """down(silu(gate(x)) * up(x)), for a module with those three projections."""
    down = cast("nn.Module", module.down_proj)
    gate, up = module.gate_proj(hidden), module.up_proj(hidden)  # type: ignore[operator]
    plain = type(down) is nn.Linear and down.weight.requires_grad and not down._forward_pre_hooks and not down._forward_hooks
    if plain and "forward" not in down.__dict__ and not torch.is_autocast_enabled(hidden.device.type):
        found: Tensor = _SwiGLUProjected.apply(gate, up, down.weight, down.bias)
        return found
    projected: Tensor = down(swiglu(gate, up))
    return projected


def plain_norm(module: nn.Module, hidden: Tensor) -> Tensor:
    """RMSNorm with the module's weight [D]."""
    return _norm(hidden, _weight(module).to(hidden.dtype), epsilon(module))


def offset_norm(module: nn.Module, hidden: Tensor) -> Tensor:
    """The same with 1 + weight, as Gemma has it."""
    return _norm(hidden, (1 + _weight(module)).to(hidden.dtype), epsilon(module))


def _norm(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """[..., D], [D] -> [..., D]. For CPUs torch has no kernel of its own, and differentiates six operations."""
    if hidden.device.type != "cpu" or hidden.dtype not in (torch.float32, torch.float64):
        return rms_norm(hidden, hidden.shape[-1:], weight, epsilon)
    found: Tensor = _RMSNorm.apply(hidden, weight, epsilon)
    return found


class _RMSNorm(torch.autograd.Function):
    """y = s x w with s = (mean(x^2) + eps)^(-1/2); dx = s (g w) - x s^3 mean(x g w), dw = sum of g s x."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        with torch.autocast("cpu", enabled=False):  # it would narrow the sum of squares
            squares = torch.linalg.vecdot(hidden, hidden)
        scale = squares.div_(hidden.shape[-1]).add_(epsilon).rsqrt_().unsqueeze(-1)
        ctx.save_for_backward(hidden, weight, scale)
        return (hidden * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        hidden, weight, scale = ctx.saved_tensors
        of_weight = (slope * hidden).mul_(scale).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, of_weight, None
        of_normed = slope * weight
        with torch.autocast("cpu", enabled=False):
            along = torch.linalg.vecdot(of_normed, hidden)
        along = along.unsqueeze(-1).mul_(scale.pow(3)).div_(hidden.shape[-1])
        return of_normed.mul_(scale).addcmul_(hidden, along, value=-1), of_weight, None


def _weight(module: nn.Module) -> Tensor:
    return cast("Tensor", module.weight)


def epsilon(module: nn.Module) -> float:
    """What a norm adds to the mean square, under either of its usual names."""
    return float(getattr(module, "variance_epsilon", getattr(module, "eps", 0.0)))

"""Norms and gated MLPs with fewer operations. Oracle: the models' own forward, and the equations by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.kernels.test_isolation import tiny
from tunewright.kernels.elementwise import _SwiGLUProjected, gated_mlp, swiglu
from tunewright.kernels.swap import swap_back, swap_mlps, swap_norms
from tunewright.kernels.taken import Taken

IDS = torch.randint(64, (2, 9), generator=torch.Generator().manual_seed(1))
COUNTS = {"llama": (2, 5), "qwen3": (2, 9), "mistral": (2, 5), "qwen3_moe": (0, 9), "gpt_oss": (0, 5), "gemma2": (0, 9)}
"""Gated MLPs with SiLU, and norms: of 2 layers, by the papers of the models. Gemma has GELU; experts are no such modules."""


def loss_and_gradients(model: nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
    loss.backward()
    return loss.detach(), {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("kind", COUNTS)
def test_models_are_as_before(kind: str) -> None:
    """Loss and every gradient, those of the norms' weights included; to 1e-6, because the models' norms round to float32."""
    model = tiny(kind)
    wanted = loss_and_gradients(model)
    assert (swap_mlps(model).number, swap_norms(model).number) == COUNTS[kind]
    torch.testing.assert_close(loss_and_gradients(model), wanted, rtol=1e-5, atol=1e-7)
    swap_back(model)
    again = loss_and_gradients(model)
    assert torch.equal(again[0], wanted[0])
    assert all(torch.equal(again[1][name], one) for name, one in wanted[1].items())


def test_swiglu_in_float64() -> None:
    """silu(g) u, slopes u silu'(g) and silu(g): with silu(0) = 0, silu'(0) = 1/2; silu(x) = x / (1 + e^-x)."""
    gate = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    up = torch.tensor([3.0, 2.0], dtype=torch.float64, requires_grad=True)
    value = swiglu(gate, up)
    value.sum().backward()
    sigmoid = 1 / (1 + torch.e ** -1)
    assert value.tolist() == pytest.approx([0, 2 * sigmoid], rel=1e-15)
    assert gate.grad is not None and up.grad is not None
    assert gate.grad.tolist() == pytest.approx([1.5, 2 * (sigmoid + sigmoid * (1 - sigmoid))], rel=1e-15)
    assert up.grad.tolist() == pytest.approx([0, sigmoid], rel=1e-15)
    assert torch.autograd.gradcheck(swiglu, (torch.randn(3, 4, dtype=torch.float64, requires_grad=True),
                                             torch.randn(3, 4, dtype=torch.float64, requires_grad=True)))


@pytest.mark.parametrize("bias", [False, True])
def test_a_projection_that_trains_keeps_no_product(bias: bool) -> None:
    """Numerical slopes of all it reads; between the passes it holds gate, up and weight, not their product."""
    generator = torch.Generator().manual_seed(0)
    down = nn.Linear(4, 3, bias=bias, dtype=torch.float64)
    gate, up = (torch.randn(2, 5, 4, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(2))
    parts = (gate, up, down.weight, *([down.bias] if bias else []))
    assert torch.autograd.gradcheck(lambda g, u, w, b=None: _SwiGLUProjected.apply(g, u, w, b), parts)
    block = nn.Module()
    block.gate_proj, block.up_proj, block.down_proj = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(4, 6)
    kept: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(tuple(one.shape)) or one, lambda one: one):
        gated_mlp(block, torch.randn(1, 5, 6))
    assert kept.count((1, 5, 4)) == 2 and (5, 4) not in kept


def test_a_module_that_does_something_else_keeps_its_own() -> None:
    """It looks like one of ours and is not."""

    class DoubledRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.variance_epsilon = nn.Parameter(torch.ones(8)), 1e-6

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return 2 * torch.nn.functional.rms_norm(hidden, (8,), self.weight, 1e-6)

    class SkippingMLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_proj, self.up_proj, self.down_proj = nn.Linear(8, 4), nn.Linear(8, 4), nn.Linear(4, 8)
            self.act_fn = nn.SiLU()

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return hidden + self.down_proj(self.act_fn(self.gate_proj(hidden)) * self.up_proj(hidden))

    model = nn.ModuleList([DoubledRMSNorm(), SkippingMLP()])
    assert swap_mlps(model) == swap_norms(model) == Taken(0, {"it computes something else": 1})


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_in_bfloat16(kind: str) -> None:
    """One rounding instead of two: as close to float64 as the model's own."""
    model = tiny(kind).to(torch.bfloat16)
    norm = model.model.norm
    hidden = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    wide = hidden.double()
    factor = norm.weight.double() + (kind == "gemma2")
    true = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6) * factor
    own = (norm(hidden).double() - true).abs().max()
    assert swap_norms(model).number > 0
    assert (norm(hidden).double() - true).abs().max() <= own


def test_a_norm_under_autocast_does_not_narrow_its_sums() -> None:
    """float32 in, float32 out, the very numbers and slopes that it has without autocast; torch narrows a vector product there."""
    model = tiny("llama").float()
    assert swap_norms(model) == Taken(5, {})
    norm = model.model.norm
    hidden = torch.randn(3, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    plain = norm(hidden)
    (slope,) = torch.autograd.grad(plain.sin().sum(), hidden)
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(hidden)
        (narrow,) = torch.autograd.grad(found.sin().sum(), hidden)
    assert torch.equal(found, plain) and torch.equal(narrow, slope)

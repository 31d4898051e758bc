"""Rotary positions in two passes. Oracle: multiplication of complex numbers, and the models' own forward."""

from __future__ import annotations

import copy
from types import MethodType
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from tests.kernels.test_isolation import SHAPE, tiny
from tests.kernels.test_swap import loss_and_gradients
from tunewright.kernels.rotary import rotate, rotated, switch_back, switch_over, switch_over_unproven
from tunewright.kernels.taken import Taken

COUNTS = {"llama": 2, "qwen3": 2, "mistral": 2, "qwen3_moe": 2, "gemma2": 2, "phi": 2, "gpt_oss": 0, "glm4": 0, "cohere": 0}
"""Attentions of 2 layers that rotate the pairs (i, i + D/2). GPT-OSS has half as many cosines; GLM and Cohere rotate neighbours."""


def made(kind: str) -> Any:
    if kind in ("phi", "glm4", "cohere", "gpt2"):
        torch.manual_seed(2)
        return transformers.AutoModelForCausalLM.from_config(transformers.CONFIG_MAPPING[kind](**SHAPE), dtype=torch.float64)
    return tiny(kind)


@pytest.mark.parametrize("kind", COUNTS)
def test_models_are_as_before(kind: str) -> None:
    """Loss and every gradient; and after switching back, to the bit."""
    model = made(kind)
    wanted = loss_and_gradients(model)
    assert switch_over(model).number == COUNTS[kind]
    torch.testing.assert_close(loss_and_gradients(model), wanted, rtol=1e-6, atol=1e-9)
    switch_back(model)
    assert not any("forward" in module.__dict__ for module in model.modules())
    again = loss_and_gradients(model)
    assert torch.equal(again[0], wanted[0])
    assert all(torch.equal(again[1][name], one) for name, one in wanted[1].items())


def test_positions_turn_pairs_in_the_plane() -> None:
    """(x1 + i x2) e^(i a), for each pair an angle of its own."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 3, 5, 8, dtype=torch.float64, generator=generator, requires_grad=True)
    angles = torch.randn(5, 4, dtype=torch.float64, generator=generator)
    both = torch.cat((angles, angles), dim=-1)
    turned = torch.complex(*states.chunk(2, -1)) * torch.polar(torch.ones_like(angles), angles)
    found = rotated(states, both.cos(), both.sin())
    torch.testing.assert_close(found, torch.cat((turned.real, turned.imag), dim=-1), rtol=1e-14, atol=1e-14)
    other = torch.randn(5, 8, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(lambda x: rotated(x, both.cos(), other), (states,))  # halves of the sines need not be alike


def test_what_has_another_form_goes_to_the_models_own() -> None:
    """Another axis, half as many cosines, or cosines in another number format."""
    asked = []

    def own(*arguments: Any, **settings: Any) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append((len(arguments), settings))
        return arguments[0], arguments[1]

    query, key, cos = torch.randn(1, 2, 3, 8), torch.randn(1, 1, 3, 8), torch.randn(1, 3, 8)
    rotate(own, query, key, cos, cos)
    assert asked == []
    rotate(own, query, key, cos, cos, 2)
    rotate(own, query, key, cos, cos, unsqueeze_dim=2)
    rotate(own, query, key, cos[..., :4], cos[..., :4])
    rotate(own, query.bfloat16(), key.bfloat16(), cos, cos)
    assert asked == [(5, {}), (4, {"unsqueeze_dim": 2}), (4, {}), (4, {})]


def test_a_copy_of_a_model_has_attentions_of_its_own() -> None:
    """As a reference model is copied from the policy."""
    model = tiny("llama")
    switch_over(model)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    forward = twin.model.layers[0].self_attn.__dict__["forward"]
    assert isinstance(forward, MethodType) and forward.__self__ is twin.model.layers[0].self_attn
    assert float(loss_and_gradients(twin)[0]) != float(loss_and_gradients(model)[0])


def test_a_function_that_another_package_put_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Liger replaces it in the file of the family."""
    model = tiny("llama")
    file = __import__(type(model).__module__, fromlist=["*"])
    monkeypatch.setattr(file, "apply_rotary_pos_emb", lambda q, k, cos, sin: (q, k))
    assert switch_over(model) == switch_over_unproven(model) == Taken(0, {"apply_rotary_pos_emb is not that of their file": 2})


def test_a_function_that_does_something_else_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same name, in the same file."""
    model = tiny("llama")
    file: Any = __import__(type(model).__module__, fromlist=["*"])
    own = file.apply_rotary_pos_emb

    def doubled(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        one, other = own(q, k, cos, sin)
        return 2 * one, other

    doubled.__module__ = file.__name__
    monkeypatch.setattr(file, "apply_rotary_pos_emb", doubled)
    assert switch_over(model) == Taken(0, {"it computes something else": 2})


@pytest.mark.parametrize(("kind", "changes", "width"), [("llama", {"head_dim": 16}, 16), ("phi", {}, 4)])
def test_a_function_is_tried_at_the_models_own_width(
    kind: str, changes: dict[str, int], width: int, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that is wrong at that width alone is not taken; of a model with partial rotary positions, it is the width of that part."""
    config = transformers.CONFIG_MAPPING[kind](**{**SHAPE, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float64)
    assert switch_over(model).number == 2
    switch_back(model)
    file: Any = __import__(type(model).__module__, fromlist=["*"])
    own = file.apply_rotary_pos_emb

    def wrong_there(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        one, other = own(q, k, cos, sin)
        return (-one if q.shape[-1] == width else one), other

    wrong_there.__module__ = file.__name__
    monkeypatch.setattr(file, "apply_rotary_pos_emb", wrong_there)
    assert switch_over(model) == Taken(0, {"it computes something else": 2})


def test_no_family_is_changed() -> None:
    """A model that is made afterwards has the forward of its class."""
    model = tiny("llama")
    switch_over(model)
    assert isinstance(model, nn.Module)
    assert "forward" not in tiny("llama").model.layers[0].self_attn.__dict__
    assert type(model.model.layers[0].self_attn).forward.__globals__["apply_rotary_pos_emb"].__module__.startswith("transformers.")

"""Free memory goes back to the system before the embedding's gradient. Oracle: gradients without it, and the order of events."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.test_isolation import tiny
from tunewright.kernels import heap
from tunewright.kernels.heap import trim_before_embedding


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(input_ids=torch.arange(6).unsqueeze(0)).logits.square().sum().backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def test_once_a_backward_pass_and_before_the_embeddings_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_LARGE", 0)
    events: list[str] = []
    monkeypatch.setattr(heap, "_malloc_trim", lambda: lambda: events.append("trim"))
    model = tiny("llama")
    wanted = gradients(model)
    assert trim_before_embedding(model) == ("memory: what is free is given back before the embedding's gradient is made",)
    weights = {"first layer": model.model.layers[0].mlp.up_proj.weight, "embedding": model.model.embed_tokens.weight}
    for name, weight in weights.items():
        weight.register_post_accumulate_grad_hook(lambda _, name=name: events.append(name))
    found = gradients(model)
    assert events == ["first layer", "trim", "embedding"]
    assert all(torch.equal(one, found[name]) for name, one in wanted.items())
    with torch.no_grad():
        model(input_ids=torch.arange(6).unsqueeze(0))
    assert events[3:] == []


def test_it_is_left_alone_where_nothing_is_gained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small embedding, a frozen one, another C library."""
    model = tiny("llama")
    assert trim_before_embedding(model) == ()
    monkeypatch.setattr(heap, "_LARGE", 0)
    model.requires_grad_(False)
    assert trim_before_embedding(model) == ()
    model.requires_grad_(True)
    monkeypatch.setattr(heap, "_malloc_trim", lambda: None)
    assert trim_before_embedding(model) == ()


def test_glibc_gives_memory_back() -> None:
    """Resident memory falls, though a block above what was freed is still in use. Only with glibc."""
    trim = heap._malloc_trim()
    if trim is None:
        return

    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096

    trim()
    blocks = [torch.ones(16_000) for _ in range(3000)]
    kept = blocks[-1]
    del blocks
    before = resident()
    trim()
    assert before - resident() > 50_000_000
    assert kept.sum() == 16_000

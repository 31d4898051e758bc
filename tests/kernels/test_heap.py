"""Free memory is kept from step to step, and goes back to the system before the embedding's gradient.

Oracles: the pages that the system counts, gradients without it, and the order of events.
"""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from tests.kernels.test_isolation import tiny
from tunewright.kernels import heap
from tunewright.kernels.heap import keep_freed, trim_before_embedding


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


FRESH_PAGES = """
import resource, torch
from transformers import LlamaConfig, LlamaForCausalLM
from tunewright.kernels.heap import keep_freed
assert keep_freed(LlamaForCausalLM(LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                                               vocab_size=8)))
for step in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(1_000_000) for _ in range(50)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""How many pages the fourth of four steps is given, each of which makes and frees 50 blocks of 4 MB."""


def test_a_step_finds_what_the_last_one_freed() -> None:
    """200 MB are 48,800 pages, and so many are fresh without it (torch 2.13, glibc 2.36). Only with glibc."""
    if platform.libc_ver()[0] == "glibc":
        found = subprocess.run([sys.executable, "-c", FRESH_PAGES], check=True, capture_output=True, text=True)
        assert int(found.stdout) < 2_000


def test_what_is_freed_is_kept_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on another device, with another C library, or with one that refuses."""
    settings: list[tuple[int, int]] = []
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(heap, "_mallopt", lambda: lambda number, value: settings.append((number, value)) or 1)
    model = tiny("llama")
    assert keep_freed(model) == ("memory: what a step frees is kept for the next one",)
    assert settings == [(-3, 32 << 20), (-1, -1)]  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    assert keep_freed(tiny("llama").to("meta")) == ()
    monkeypatch.setattr(heap, "_mallopt", lambda: lambda number, value: 0)
    assert keep_freed(model) == ()
    monkeypatch.setattr(heap, "_mallopt", lambda: None)
    assert keep_freed(model) == ()
    monkeypatch.setattr(heap, "_mallopt", lambda: pytest.fail)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert keep_freed(model) == ()

"""Attention of all segments in one call. torch's kernel for it needs an NVIDIA GPU: a stand-in by its documentation takes its place, and
the oracle is the masked softmax written out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor

from tests.kernels.test_isolation import run, tiny
from tunewright.kernels import packed_attention, varlen_attention
from tunewright.kernels.blocked_attention import Rule
from tunewright.kernels.packed_attention import attend_segments
from tunewright.kernels.plan import plan
from tunewright.kernels.prefix_sharing import segments
from tunewright.kernels.varlen_attention import Kind, attend_at_once, obstacle

CPU = torch.device("cpu")
KIND = Kind(4, 2, 8, torch.bfloat16, CPU, Rule())


def as_documented(queries: Tensor, keys: Tensor, values: Tensor, *ends: Any, scale: float | None = None,
                  window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False) -> Tensor:
    """[T, H, D], [K, G, D] twice -> [T, H, D]; of each sequence the last query sees the last key, `window_size[0]` keys before its own.
    `ends`: where sequences of queries and of keys end, and the length of the longest of each."""
    query_ends, key_ends, longest_query, longest_key = ends
    assert query_ends.dtype == key_ends.dtype == torch.int32 and window_size[1] == 0
    assert enable_gqa == (queries.shape[1] != keys.shape[1])
    found = []
    for (start, end), (first, last) in zip(pairwise(query_ends.tolist()), pairwise(key_ends.tolist()), strict=True):
        assert end - start <= longest_query and last - first <= longest_key
        places = torch.arange(end - start)[:, None] + (last - first) - (end - start) - torch.arange(last - first)
        hidden = (places < 0) | (places > (window_size[0] if window_size[0] >= 0 else last))
        heads = queries.shape[1] // keys.shape[1]
        spread = [one[first:last].repeat_interleave(heads, dim=1) for one in (keys, values)]
        products = torch.einsum("qhd,khd->hqk", queries[start:end], spread[0]) * (scale or queries.shape[-1] ** -0.5)
        found.append(torch.einsum("hqk,khd->qhd", products.masked_fill(hidden, -torch.inf).softmax(-1), spread[1]))
    return torch.cat(found)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", as_documented)
    varlen_attention.obstacle.cache_clear()
    yield
    varlen_attention.obstacle.cache_clear()


def random(heads: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, heads, 23, 8, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()


@pytest.mark.parametrize("rule", [Rule(), Rule(window=3), Rule(scale=0.3, window=6)])
@pytest.mark.parametrize(("bounds", "prefixes"), [
    ([0, 23], None), ([0, 1, 9, 23], None), ([0, 9, 12, 23], [0, 4, 7]), ([0, 9, 10, 23], [0, 9, 0])])
def test_one_call_equals_a_call_for_each(stand_in: None, bounds: list[int], prefixes: list[int] | None, rule: Rule) -> None:
    """Result and gradients in float64; the other way has tests of its own against the naive formula."""
    parts = segments(torch.tensor(bounds), None if prefixes is None else torch.tensor(prefixes))
    inputs = tuple(random(heads, heads + place) for place, heads in enumerate((4, 2, 2)))
    slope = random(4, 9).transpose(1, 2)
    both = [way(*inputs, parts, rule) for way in (attend_at_once, attend_segments)]
    torch.testing.assert_close(both[0], both[1], rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(one, inputs, slope) for one in both]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-11)


def test_it_is_taken_where_it_may_be(stand_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a device that passes for an NVIDIA GPU, and not by one that does not."""
    calls: list[int] = []
    monkeypatch.setattr(varlen_attention, "attend_at_once", lambda *given: calls.append(1) or as_before(*given))
    as_before = attend_at_once
    inputs = tuple(random(heads, heads + place, torch.bfloat16) for place, heads in enumerate((4, 2, 2)))
    parts = segments(torch.tensor([0, 9, 23]), None)
    attend_segments(*inputs, parts, Rule())
    assert not calls
    monkeypatch.setattr(packed_attention.varlen_attention, "fits", lambda *given: True)
    attend_segments(*inputs, parts, Rule())
    assert calls == [1]


def test_a_kernel_that_passes_its_trial_is_taken(stand_in: None) -> None:
    """With a window that would hide nothing of so few tokens, too."""
    assert obstacle(KIND) is None and obstacle(KIND._replace(rule=Rule(window=4096))) is None


def test_a_trial_inside_a_layer_that_is_recomputed(stand_in: None) -> None:
    """Where a layer uses it for the first time: by hand, the slope of the square of 1; torch itself compares what both passes save."""
    verdicts: list[str | None] = []

    def layer(number: Tensor) -> Tensor:
        verdicts.append(obstacle(KIND))
        return number * number

    number = torch.ones(1, requires_grad=True)
    torch.utils.checkpoint.checkpoint(layer, number, use_reentrant=False).backward()
    assert number.grad is not None and number.grad.item() == 2 and verdicts == [None, None]


def test_a_trial_in_inference_mode(stand_in: None) -> None:
    """Where an evaluation uses it for the first time."""
    with torch.inference_mode():
        assert obstacle(KIND) is None


@pytest.mark.parametrize(("kind", "reason"), [
    (KIND._replace(dtype=torch.float32), "it computes in 16-bit formats, and this is float32"),
    (KIND._replace(width=20), "heads are 20 wide"), (KIND._replace(width=264), "heads are 264 wide"),
    (KIND._replace(rule=Rule(dropout=0.1)), "it has no dropout")])
def test_what_it_cannot_do(stand_in: None, kind: Kind, reason: str) -> None:
    """By the kernel's documentation."""
    assert obstacle(kind) == reason


@pytest.mark.parametrize("fault", ["the first query sees the first key", "the prefix is not there", "no kernel"])
def test_a_kernel_that_fails_its_trial_is_not_taken(stand_in: None, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Another meaning of causal, keys in another order, an error."""

    def faulty(queries: Tensor, keys: Tensor, *given: Any, **named: Any) -> Tensor:
        if fault == "no kernel":
            raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.\nmore")
        if fault == "the prefix is not there":
            return as_documented(queries, keys.roll(40, 0), *given, **named)
        named["window_size"] = (0, 0)
        return as_documented(queries, keys, *given, **named)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", faulty)
    wanted = "FlashAttention only supports Ampere GPUs or newer." if fault == "no kernel" else "it computes something else here (by "
    assert (obstacle(KIND) or "").startswith(wanted)


@pytest.mark.parametrize(("reason", "told"), [
    (None, "without padding, in one call of torch's FlashAttention"),
    ("heads are 20 wide", "without padding, in a call for each: not FlashAttention, heads are 20 wide")])
def test_a_run_is_told(monkeypatch: pytest.MonkeyPatch, reason: str | None, told: str) -> None:
    """With the model's heads, the format of the run's mixed precision, and a card that is made up."""
    asked: list[Kind] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr(varlen_attention, "obstacle", lambda kind: asked.append(kind) or reason)
    given = run("auto")
    given.run.use_cpu, given.precision = False, SimpleNamespace(bf16=True, pure_bf16=False, fp16=False)
    assert plan(given, tiny("mistral")).reasons[0].endswith(told)  # type: ignore[arg-type]
    assert asked == [Kind(4, 2, 8, torch.bfloat16, torch.device("cuda", 0), Rule(window=4))]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel runs on NVIDIA GPUs")
@pytest.mark.parametrize("rule", [Rule(), Rule(window=5)])
def test_on_a_gpu(rule: Rule) -> None:
    """Its own trial, with the numbers of heads of Llama 3 and of SmolLM2."""
    device = torch.device("cuda", torch.cuda.current_device())
    assert obstacle(Kind(32, 8, 128, torch.bfloat16, device, rule)) is None
    assert obstacle(Kind(9, 3, 64, torch.float16, device, rule)) is None

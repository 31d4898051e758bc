"""Packed attention against a naive masked softmax, and a packed model against its rows one by one."""

from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
import torch

from tunewright.data.collate import Example, collate_flat, collate_padded
from tunewright.kernels import packed_attention, packed_eager
from tunewright.kernels.blocked_attention import Rule
from tunewright.kernels.packed_attention import attend_segments, register
from tunewright.kernels.prefix_sharing import segments
from tunewright.stages.causal_lm import model_inputs
from tunewright.stages.sft import SupervisedFineTuning
from tunewright.stages.stage import Role


def naive(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: list[int], window: int | None) -> torch.Tensor:
    """softmax(q k^T / sqrt(D) + M) v with the whole [T, T] mask written out."""
    heads, length, width = query.shape[1:]
    key = key.repeat_interleave(heads // key.shape[1], dim=1)
    value = value.repeat_interleave(heads // value.shape[1], dim=1)
    mask = torch.full((length, length), float("-inf"), dtype=query.dtype)
    for start, end in pairwise(bounds):
        for row in range(start, end):
            first = start if window is None else max(start, row - window + 1)
            mask[row, first : row + 1] = 0
    weights = torch.softmax(query @ key.transpose(-1, -2) / width**0.5 + mask, dim=-1)
    return (weights @ value).transpose(1, 2)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("bounds", [[0, 9], [0, 1, 9], [0, 4, 5, 9], [0, 3, 6, 9], [0, 1, 5, 9], [0, 0, 0, 9]])
def test_segments_equal_the_masked_softmax(bounds: list[int], window: int | None) -> None:
    """Oracle: the naive formula in float64, forward and gradient."""
    torch.manual_seed(1)
    query, key, value = (torch.randn(1, heads, 9, 8, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2))
    expected = naive(query, key, value, bounds, window)
    actual = attend_segments(query, key, value, segments(torch.tensor(bounds), None), Rule(window=window))
    assert torch.allclose(actual, expected, atol=1e-12)
    probe = torch.randn_like(expected)
    expected_grads = torch.autograd.grad(expected, (query, key, value), probe)
    actual_grads = torch.autograd.grad(actual, (query, key, value), probe)
    for ours, theirs in zip(actual_grads, expected_grads, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


def tiny_model(kind: str, attention: str) -> torch.nn.Module:
    import transformers

    shape = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    config = {
        "llama": lambda: transformers.LlamaConfig(**shape),
        "qwen3": lambda: transformers.Qwen3Config(**shape, head_dim=8),
        "mistral, window 4": lambda: transformers.MistralConfig(**shape, sliding_window=4),
    }[kind]()
    torch.manual_seed(2)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).double()


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral, window 4"])
def test_packed_loss_and_gradients_equal_padded_rows(kind: str) -> None:
    """Identity: one packed row = the same rows padded, through transformers' own masked attention, in float64 to 1e-10."""
    rng = np.random.default_rng(3)
    rows = []
    for number, length in enumerate((7, 1, 12, 5)):
        ids = rng.integers(3, 64, length).astype(np.int32)
        labels = ids.copy()
        labels[0] = -100
        rows.append(Example(ids, labels, np.array([0, length], dtype=np.int32), number))
    stage = SupervisedFineTuning()
    results = []
    for attention, batch in ((register(), collate_flat(rows)), ("sdpa", collate_padded(rows, 0))):
        model = tiny_model(kind, attention)
        loss = stage.loss({Role.POLICY: model}, batch)
        loss.sum.backward()
        assert loss.count == stage.units(batch) == 7 + 1 + 12 + 5 - 4
        results.append((loss.sum.detach(), {name: weight.grad for name, weight in model.named_parameters()}))
    (packed, packed_grads), (padded, padded_grads) = results
    assert torch.allclose(packed, padded, rtol=1e-10)
    for name, gradient in padded_grads.items():
        assert torch.allclose(packed_grads[name], gradient, atol=1e-10), name


@pytest.mark.parametrize("kernel", [packed_attention, packed_eager])
def test_where_rows_end_is_read_once_for_all_layers(kernel: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an accelerator each reading waits for all that was asked of it before. Counted: calls of `tolist` in a pass of two layers."""
    model = tiny_model("llama", kernel.register()).train()
    ids = np.arange(3, 12, dtype=np.int32)
    batch = collate_flat([Example(ids, ids, np.array([0, 4, 9], np.int32), 0)])
    read: list[int] = []
    own = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: read.append(self.numel()) or own(self))
    model(**model_inputs(batch), use_cache=False)
    assert len(read) == 1

"""Shifted sparse attention against a loop over every position, written from the paper's figure 2."""

from __future__ import annotations

import math

import pytest
import torch

from tests.models.tiny import tiny_model
from tunewright.config.data import DataConfig
from tunewright.config.model import ModelConfig
from tunewright.config.run import RunConfig
from tunewright.errors import InputError
from tunewright.kernels.plan import apply
from tunewright.kernels.shifted_attention import NAME, attend_groups


def group_of(position: int, size: int, shifted: bool) -> int:
    """Groups of `size`; shifted ones begin half a group later, and what lies before is a group too."""
    return (position + size // 2) // size if shifted else position // size


def by_hand(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """[H, T, D]: softmax over the keys of the query's group that are not after it."""
    heads, length, width = query.shape
    size = 2 * math.ceil(length / 8)
    found = torch.zeros_like(query)
    for head in range(heads):
        shifted = head >= heads // 2
        for at in range(length):
            seen = [one for one in range(at + 1) if group_of(one, size, shifted) == group_of(at, size, shifted)]
            weights = torch.softmax(torch.stack([query[head, at] @ key[head, one] for one in seen]) / math.sqrt(width), 0)
            found[head, at] = sum(weight * value[head, one] for weight, one in zip(weights, seen, strict=True))
    return found


@pytest.mark.parametrize("length", [1, 7, 8, 16, 21, 40])
@pytest.mark.parametrize("heads", [2, 4])
def test_attention_and_gradients_equal_the_loop(length: int, heads: int) -> None:
    """float64, so that only rounding differs."""
    torch.manual_seed(length)
    ours = [torch.randn(2, heads, length, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    theirs = [one.detach().clone().requires_grad_() for one in ours]
    found = attend_groups(*ours)
    expected = torch.stack([by_hand(*(one[row] for one in theirs)) for row in range(2)])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    weights = torch.randn_like(found)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-12)


def test_no_position_sees_its_future() -> None:
    """Changing the last position changes no earlier output, in either half of the heads."""
    query, key, value = torch.randn(3, 1, 4, 16, 4, dtype=torch.float64).unbind(0)
    before = attend_groups(query, key, value)
    changed = [torch.cat([one[:, :, :-1], one[:, :, -1:] + 1], dim=2) for one in (query, key, value)]
    assert torch.equal(before[:, :, :-1], attend_groups(*changed)[:, :, :-1])


@pytest.mark.effect("shift_attn")
def test_training_attends_in_groups_and_evaluation_to_everything() -> None:
    """Padding at the end of a row leaves its real positions as they are."""
    model, plain = tiny_model("llama"), tiny_model("llama")
    plan = apply(RunConfig(model=ModelConfig(model_name_or_path="m", shift_attn=True)), model)
    assert plan.attention == NAME and not plan.flat
    ids = torch.randint(3, 90, (1, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, plain(ids).logits)
        model.train()
        assert not torch.allclose(model(ids).logits, plain(ids).logits, atol=1e-3)
        padded, seen = torch.cat([ids, torch.zeros(1, 7, dtype=torch.long)], 1), torch.tensor([[1] * 16 + [0] * 7])
        torch.testing.assert_close(model(padded, attention_mask=seen).logits[:, :16], model(ids).logits)


def test_a_row_attends_alike_whatever_is_beside_it() -> None:
    """Identity: logits and gradients of rows of 9, 16 and 23 tokens in one padded batch are those of each row by itself."""
    torch.manual_seed(0)
    lengths = (9, 16, 23, 16)
    ids, seen = torch.randint(3, 90, (4, 23)), torch.zeros(4, 23, dtype=torch.long)
    for row, length in enumerate(lengths):
        seen[row, :length] = 1
    models = [tiny_model("llama").double().train() for _ in range(2)]
    for model in models:
        apply(RunConfig(model=ModelConfig(model_name_or_path="m", shift_attn=True)), model)
    together = models[0](ids * seen, attention_mask=seen).logits
    alone = [models[1](ids[row:row + 1, :length]).logits[0] for row, length in enumerate(lengths)]
    for row, length in enumerate(lengths):
        torch.testing.assert_close(together[row, :length], alone[row], rtol=1e-9, atol=1e-11)
    sum(together[row, :length].square().sum() for row, length in enumerate(lengths)).backward()  # type: ignore[union-attr]
    sum(one.square().sum() for one in alone).backward()  # type: ignore[union-attr]
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-8, atol=1e-10)


def test_models_whose_attention_is_special_are_refused() -> None:
    model = tiny_model("llama")
    model.config.sliding_window = 4
    with pytest.raises(InputError, match="shift_attn: the model attends within a sliding window"):
        apply(RunConfig(model=ModelConfig(model_name_or_path="m", shift_attn=True), data=DataConfig()), model)

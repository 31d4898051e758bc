"""Log-probabilities by token and by sequence, against naive loops, torch's own functions and hand-worked values."""

from __future__ import annotations

import math

import pytest
import torch

from tunewright.losses.language_modeling import cross_entropy_sum
from tunewright.losses.logps import count_by_owner, entropy, mean_by_owner, rows_by_owner, sum_by_owner, target_logps

OWNERS = torch.tensor([0, 0, 0, 2, 2, 3, 5, 5, 5, 5])  # sequences 1 and 4 are empty, 3 has one token
COUNT = 7  # and so is the last one
LENGTHS = [3, 0, 2, 1, 0, 4, 0]


def _values(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(10, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def test_sums_means_and_counts_equal_a_loop() -> None:
    """Oracle: Python's exact `math.fsum` over each sequence's tokens."""
    values = _values()
    by_owner = [[float(v) for v, owner in zip(values, OWNERS, strict=True) if owner == i] for i in range(COUNT)]
    assert count_by_owner(OWNERS, COUNT).tolist() == LENGTHS
    assert sum_by_owner(values, OWNERS, COUNT).tolist() == pytest.approx([math.fsum(v) for v in by_owner], rel=1e-15, abs=1e-15)
    assert mean_by_owner(values, OWNERS, COUNT).tolist() == pytest.approx([math.fsum(v) / max(len(v), 1) for v in by_owner], rel=1e-15)


def test_gradients_of_sum_and_mean() -> None:
    """Oracle: numerical differentiation (torch.autograd.gradcheck), and by hand: 1 and 1 / length for each token."""
    values = _values().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: sum_by_owner(v, OWNERS, COUNT), values)
    assert torch.autograd.gradcheck(lambda v: mean_by_owner(v, OWNERS, COUNT), values)
    mean_by_owner(values, OWNERS, COUNT).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == pytest.approx([1 / 3] * 3 + [1 / 2] * 2 + [1.0] + [1 / 4] * 4)


def test_float32_sums_are_rounded_once() -> None:
    """Oracle: math.fsum. One large and many small numbers: adding in float32 would lose every small one."""
    values = torch.tensor([-(2.0**24)] + [-1.0] * 999)
    total = sum_by_owner(values, torch.zeros(1000, dtype=torch.int64), 1)
    assert total.dtype is torch.float32
    assert float(total) == float(torch.tensor(math.fsum(values.tolist())))
    assert float(torch.zeros(1).index_add(0, torch.zeros(1000, dtype=torch.int64), values)) == -(2.0**24)


def test_a_sum_does_not_depend_on_the_rest_of_the_batch() -> None:
    """Identity, to the last bit: a sequence alone, or behind a thousand huge numbers."""
    tokens, noise = _values(torch.float32), torch.full((1000,), 1e8)
    alone = sum_by_owner(tokens, torch.zeros(10, dtype=torch.int64), 1)
    behind = sum_by_owner(torch.cat([noise, tokens]), torch.tensor([0] * 1000 + [1] * 10), 2)
    assert torch.equal(alone[0], behind[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_back_as_float32(dtype: torch.dtype) -> None:
    """Identity: the sum of the widened numbers."""
    values = _values(dtype)
    assert torch.equal(sum_by_owner(values, OWNERS, COUNT), sum_by_owner(values.float(), OWNERS, COUNT))


def test_no_tokens_at_all() -> None:
    """By hand: three empty sequences sum to zero, and the gradient reaches the (empty) graph."""
    values = torch.zeros(0, requires_grad=True)
    total = sum_by_owner(values, torch.zeros(0, dtype=torch.int64), 3)
    total.sum().backward()
    assert total.tolist() == [0.0, 0.0, 0.0]
    assert values.grad is not None and values.grad.shape == (0,)
    nothing = mean_by_owner(values, torch.zeros(0, dtype=torch.int64), 0)
    assert nothing.shape == (0,) and nothing.requires_grad


def test_rows_hold_each_sequence_and_give_the_tokens_back() -> None:
    """Oracle: written by hand."""
    rows, mask = rows_by_owner(torch.arange(1.0, 7.0), torch.tensor([0, 0, 2, 2, 2, 3]), 4)
    assert rows.tolist() == [[1, 2, 0], [0, 0, 0], [3, 4, 5], [6, 0, 0]]
    assert mask.tolist() == [[True, True, False], [False] * 3, [True] * 3, [True, False, False]]
    assert rows[mask].tolist() == [1, 2, 3, 4, 5, 6]
    assert rows_by_owner(torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0)[0].shape == (0, 0)


def test_target_logps_equal_log_softmax() -> None:
    """Oracles: torch's log_softmax in float64, and the sum that `cross_entropy_sum` gives for the same targets."""
    logits = torch.randn(6, 31, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 30, 5, 5, 17, 2])
    expected = torch.log_softmax(logits, -1)[torch.arange(6), targets]
    assert torch.allclose(target_logps(logits, targets), expected, atol=1e-14)
    assert torch.allclose(-target_logps(logits, targets).sum(), cross_entropy_sum(logits, targets), atol=1e-13)
    assert torch.autograd.gradcheck(lambda x: target_logps(x, targets), logits)
    assert torch.equal(target_logps(logits.view(2, 3, 31), targets.view(2, 3)), target_logps(logits, targets).view(2, 3))
    assert target_logps(logits.bfloat16(), targets).dtype is torch.float32


def test_entropy() -> None:
    """Oracles: ln V for equal logits, torch.distributions, a forbidden token adds nothing, and TRL 0.9.6 (`entropy_from_logits`)."""
    assert float(entropy(torch.zeros(7))) == pytest.approx(math.log(7), rel=1e-6)
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert torch.allclose(entropy(logits), torch.distributions.Categorical(logits=logits).entropy(), atol=1e-14)
    forbidden = torch.cat([logits, torch.full((4, 1), -torch.inf, dtype=torch.float64)], dim=-1).requires_grad_()
    assert torch.allclose(entropy(forbidden), entropy(logits), atol=1e-14)
    entropy(forbidden).sum().backward()
    assert forbidden.grad is not None and bool(forbidden.grad.isfinite().all())
    from_trl = entropy(torch.tensor([[0.0, 1.0, 2.0], [-3.0, 0.5, 0.5]], dtype=torch.float64))
    assert from_trl.tolist() == pytest.approx([0.8323955818399393, 0.760192413814254], rel=1e-12)
    assert float(entropy(torch.tensor([1e4, -1e4, 0.0]))) == 0.0

"""Cross-entropy sums against torch's own float64 cross-entropy and hand-worked values."""

import math

import pytest
import torch

from tunewright.data.records import IGNORE_INDEX
from tunewright.losses.language_modeling import correct_tokens, cross_entropy_sum, kept_positions


def test_kept_positions_are_those_with_a_target_in_some_row() -> None:
    """Oracle: written by hand; with nothing to predict one position is left so that the model can run."""
    targets = torch.tensor([[5, IGNORE_INDEX, IGNORE_INDEX], [IGNORE_INDEX, IGNORE_INDEX, 7]])
    assert kept_positions(targets).tolist() == [0, 2]
    assert kept_positions(torch.full((2, 3), IGNORE_INDEX)).tolist() == [0]


def test_uniform_logits_cost_ln_of_the_vocabulary_per_token() -> None:
    """Oracle: -ln(1/V) = ln V for each of the two trained tokens."""
    targets = torch.tensor([[3, IGNORE_INDEX, 0]])
    assert float(cross_entropy_sum(torch.zeros(1, 3, 7), targets)) == pytest.approx(2 * math.log(7), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sum_and_gradient_equal_torch(dtype: torch.dtype) -> None:
    """Oracle: torch.nn.functional.cross_entropy in float64 on the same numbers, forward and gradient."""
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 301, dtype=dtype, requires_grad=True)
    targets = torch.tensor([[1, 300, IGNORE_INDEX, 4, 4], [IGNORE_INDEX, 0, 299, IGNORE_INDEX, 7]])
    exact = logits.detach().double().requires_grad_()
    expected = torch.nn.functional.cross_entropy(
        exact.reshape(-1, 301), targets.reshape(-1), ignore_index=IGNORE_INDEX, reduction="sum")
    expected.backward()
    actual = cross_entropy_sum(logits, targets)
    actual.backward()
    tolerance = 1e-6 if dtype is torch.float32 else 1e-13
    assert float(actual.detach()) == pytest.approx(float(expected.detach()), rel=tolerance)
    assert torch.allclose(logits.grad.double(), exact.grad, atol=tolerance)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_z_loss_and_gradient_equal_torch(smoothing: float) -> None:
    """Oracle: torch's cross_entropy plus w logsumexp^2 over the trained rows, in float64, forward and gradient."""
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 31, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1, 30, IGNORE_INDEX, 4, 4], [IGNORE_INDEX, 0, 29, IGNORE_INDEX, 7]])
    plain = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, label_smoothing=smoothing, reduction="sum")
    expected = plain + 0.3 * (torch.logsumexp(logits[targets != IGNORE_INDEX], -1) ** 2).sum()
    actual = cross_entropy_sum(logits, targets, smoothing, 0.3)
    torch.testing.assert_close(actual, expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(torch.autograd.grad(actual, logits), torch.autograd.grad(expected, logits), rtol=1e-12, atol=1e-14)


def test_the_z_loss_of_uniform_logits() -> None:
    """Oracle: Z = 7 for seven logits of 0, so that each of two trained tokens costs ln 7 + w (ln 7)^2; without a target, nothing."""
    targets = torch.tensor([[3, IGNORE_INDEX, 0]])
    found = cross_entropy_sum(torch.zeros(1, 3, 7), targets, z_weight=0.5)
    assert float(found) == pytest.approx(2 * (math.log(7) + 0.5 * math.log(7) ** 2), rel=1e-6)
    assert float(cross_entropy_sum(torch.zeros(1, 3, 7), torch.full((1, 3), IGNORE_INDEX), z_weight=0.5)) == 0.0


def test_without_a_target_sum_and_gradient_are_zero() -> None:
    """Identity: a stand-in batch must add nothing, and must still reach the graph so that ranks synchronise."""
    logits = torch.randn(1, 3, 5, requires_grad=True)
    total = cross_entropy_sum(logits, torch.full((1, 3), IGNORE_INDEX))
    total.backward()
    assert float(total.detach()) == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_correct_tokens_counts_trained_positions_only() -> None:
    """Oracle: by hand; of three positions one is ignored, one right, one wrong."""
    logits = torch.eye(3).unsqueeze(0)
    assert correct_tokens(logits, torch.tensor([[0, IGNORE_INDEX, 1]])) == 1

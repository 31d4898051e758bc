"""The reward model's loss against TRL 1.16.0 (`RewardTrainer.compute_loss`, float64, computed once), hand-worked values, derivatives."""

from __future__ import annotations

import math

import pytest
import torch

from tunewright.losses.reward import bradley_terry_loss

CHOSEN, REJECTED = [1.2, -0.5, 2.0], [0.3, 0.7, 2.0]


def test_losses_and_gradients_of_trl() -> None:
    """Oracle: TRL. The third pair is a tie: ln 2 and a slope of 1/2."""
    losses, slopes = [0.34115387473208786, 1.4632824673380311, 0.6931471805599453], [0.28905049737499605, 0.7685247834990176, 0.5]
    chosen, rejected = (torch.tensor(scores, dtype=torch.float64, requires_grad=True) for scores in (CHOSEN, REJECTED))
    actual = bradley_terry_loss(chosen, rejected)
    actual.sum().backward()
    assert chosen.grad is not None and rejected.grad is not None
    assert actual.tolist() == pytest.approx(losses, rel=1e-12)
    assert chosen.grad.tolist() == pytest.approx([-slope for slope in slopes], rel=1e-12)
    assert rejected.grad.tolist() == pytest.approx(slopes, rel=1e-12)


def test_probability_of_the_choice() -> None:
    """By hand: a score difference of ln 3 means the chosen one wins 3 times of 4, whatever is added to both scores."""
    chosen = torch.tensor([math.log(3), math.log(3) + 7], dtype=torch.float64)
    assert bradley_terry_loss(chosen, torch.tensor([0.0, 7.0], dtype=torch.float64)).tolist() == pytest.approx([-math.log(0.75)] * 2)


def test_derivatives_and_extremes() -> None:
    """Oracle: numerical differentiation; at a difference of -2e4 the loss is 2e4 and the slope 1."""
    chosen, rejected = (torch.tensor(scores, dtype=torch.float64, requires_grad=True) for scores in (CHOSEN, REJECTED))
    assert torch.autograd.gradcheck(bradley_terry_loss, (chosen, rejected))
    low, high = torch.tensor([-1e4], requires_grad=True), torch.tensor([1e4])
    loss = bradley_terry_loss(low, high)
    loss.sum().backward()
    assert float(loss.detach()) == 2e4 and low.grad is not None and float(low.grad) == -1.0
    assert float(bradley_terry_loss(high, low.detach())) == 0.0

"""KTO against TRL 1.16.0 (`KTOTrainer._compute_loss`, float64, computed once), a naive loop, hand-worked values and derivatives."""

from __future__ import annotations

import math

import pytest
import torch

from tunewright.losses.kto import kl_estimate, kto_loss

BETA = 0.3


def _tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_loss_gradient_and_kl_of_trl() -> None:
    """Oracle: TRL on five rows, weights 1.5 and 0.7. It reports the mean over rows."""
    policy = _tensor([-3.1, -2.2, -7.5, -0.4, -5.0]).requires_grad_()
    reference = _tensor([-3.6, -2.0, -6.0, -1.2, -5.0])
    mismatched = _tensor([-9.0, -8.2, -11.0, -10.0, -7.0]) - _tensor([-9.5, -9.0, -10.2, -11.1, -7.4])
    kl = kl_estimate(mismatched.sum(), torch.tensor(5))
    losses = kto_loss(policy - reference, torch.tensor([True, False, False, True, True]), kl, BETA, 1.5, 0.7)
    losses.mean().backward()
    assert float(kl) == pytest.approx(0.4, rel=1e-12)
    assert float(losses.detach().mean()) == pytest.approx(0.5620402792816749, rel=1e-12)
    assert policy.grad is not None
    assert policy.grad.tolist() == pytest.approx(
        [-0.02249493825927819, 0.010415407170811465, 0.009691280811349694, -0.02241919400416651, -0.022419194004166507], rel=1e-12)


def test_negative_kl_is_clamped_as_in_trl() -> None:
    """Oracle: TRL on two rows whose mean log-ratio is -0.35."""
    policy, reference = _tensor([-3.1, -2.2]).requires_grad_(), _tensor([-3.6, -2.0])
    kl = kl_estimate((_tensor([-9.0, -8.2]) - _tensor([-8.5, -8.0])).sum(), torch.tensor(2))
    losses = kto_loss(policy - reference, torch.tensor([True, False]), kl, BETA)
    losses.mean().backward()
    assert float(kl) == 0.0 and float(losses.detach().mean()) == pytest.approx(0.47378732651842015, rel=1e-12)
    assert policy.grad is not None
    assert policy.grad.tolist() == pytest.approx([-0.037289851001631444, 0.03746627023967734], rel=1e-12)


def test_rows_equal_a_loop() -> None:
    """Oracle: the paper's formula in plain Python: weight (1 - sigmoid(beta (h - z))) or weight (1 - sigmoid(beta (z - h)))."""
    ratios, desirable, z = [0.5, -2.0, 3.0, 0.1], [True, True, False, False], 0.8
    expected = [
        1.2 * (1 - 1 / (1 + math.exp(-BETA * (h - z)))) if good else 0.6 * (1 - 1 / (1 + math.exp(-BETA * (z - h))))
        for h, good in zip(ratios, desirable, strict=True)
    ]
    actual = kto_loss(_tensor(ratios), torch.tensor(desirable), torch.tensor(z, dtype=torch.float64), BETA, 1.2, 0.6)
    assert actual.tolist() == pytest.approx(expected, rel=1e-13)


def test_equal_policy_and_reference_cost_half_the_weight() -> None:
    """Identity: h = z = 0 gives sigmoid(0) = 1/2, and derivatives of -+ weight beta / 4."""
    ratios = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    losses = kto_loss(ratios, torch.tensor([True, False]), torch.zeros(()), BETA, 1.5, 0.7)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0.75, 0.35])
    assert ratios.grad is not None and ratios.grad.tolist() == pytest.approx([-1.5 * BETA / 4, 0.7 * BETA / 4])


def test_the_kl_of_a_split_batch_is_that_of_the_whole() -> None:
    """By hand: log-ratios 3 and 1 on one rank, -2 on the other. Together 2/3; averaging the ranks' clamped means would give 1."""
    first, second = _tensor([3.0, 1.0]), _tensor([-2.0])
    together = kl_estimate(first.sum() + second.sum(), torch.tensor(2) + torch.tensor(1))
    assert float(together) == pytest.approx(2 / 3)
    assert float(kl_estimate(torch.tensor(0.7), torch.tensor(1))) == pytest.approx(0.7)
    assert float(kl_estimate(torch.zeros(()), torch.tensor(0))) == 0.0


def test_no_gradient_through_the_kl() -> None:
    """By definition of the paper (section 4.2): z_0 is a constant."""
    ratios = torch.tensor([0.5, -0.5], requires_grad=True)
    mismatched = torch.tensor([0.4, 0.8], requires_grad=True)
    assert not kl_estimate(mismatched.sum(), torch.tensor(2)).requires_grad
    direct = torch.tensor(0.4, requires_grad=True)
    kto_loss(ratios, torch.tensor([True, False]), direct, BETA).sum().backward()
    assert direct.grad is None


def test_gradients_are_the_derivatives_and_extremes_are_finite() -> None:
    """Oracle: numerical differentiation; then log-ratios of 1e4, where only the sign of the loss' slope is left."""
    marks, kl = torch.tensor([True, False, True, False]), torch.tensor(0.3, dtype=torch.float64)
    ratios = _tensor([0.4, -1.0, -2.0, 3.0]).requires_grad_()
    assert torch.autograd.gradcheck(lambda h: kto_loss(h, marks, kl, BETA, 1.1, 0.9), ratios)
    extreme = torch.tensor([1e4, 1e4, -1e4, -1e4], requires_grad=True)
    losses = kto_loss(extreme, marks, torch.tensor(0.0), BETA)
    losses.sum().backward()
    assert losses.tolist() == [0.0, 1.0, 1.0, 0.0]
    assert extreme.grad is not None and bool(extreme.grad.isfinite().all())

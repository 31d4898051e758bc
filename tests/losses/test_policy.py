"""Policy losses against TRL's numbers, naive loops, hand-worked values, identities and numerical derivatives.

TRL's numbers were computed once in float64 by its own functions on the numbers below: `GRPOTrainer._compute_loss` of TRL 1.16.0 (clip
0.2 and 0.28, KL coefficient 0.04, limit of 6 tokens), and `PPOTrainer.loss` of 0.9.6, the last version with this PPO (clips 0.2).
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tunewright.losses.policy import (
    TokenWeights,
    bounded_exp,
    clipped_surrogate,
    clipped_value_loss,
    is_clipped,
    per_length_limit,
    per_sequence_mean,
    per_token_mean,
    sequence_log_ratios,
)
from tunewright.rl.kl import k3


def _tensor(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# Three answers of 4, 1 and 3 tokens.
OWNERS = torch.tensor([0, 0, 0, 0, 1, 2, 2, 2])
NEW = [-0.9, -1.4, -0.2, -2.1, -0.7, -1.3, -0.05, -3.0]
OLD = _tensor([-1.1, -1.0, -0.25, -2.0, -1.2, -1.2, -0.6, -2.0])
REFERENCE = _tensor([-1.0, -1.2, -0.3, -2.5, -0.9, -1.5, -0.1, -2.2])
GROUP_ADVANTAGES = _tensor([0.8, 1.3, -1.1])[OWNERS]

GRPO: dict[str, tuple[float, list[float]]] = {
    "grpo": (
        -0.38840996087230556,
        [-0.08110964193746452, -0.045426012262909855, -0.06976753115185481, -0.05922356135584943, 0.002416923292293576,
         0.11139688107960403, 0.21205879363045624, -0.005446848571077631],
    ),
    "dapo": (
        -0.11721754942698367,
        [-0.1216644629061968, -0.06813901839436479, -0.10465129672778221, -0.08883534203377416, 0.0009063462346100906,
         0.12532149121455455, 0.23856614283426325, -0.006127704642462335],
    ),
    "dr_grpo": (
        -0.05209668863421497,
        [-0.05407309462497635, -0.030284008175273238, -0.046511687434569876, -0.039482374237232956, 0.0004028205487155959,
         0.05569844053980202, 0.10602939681522812, -0.0027234242855388156],
    ),
    "gspo": (
        -0.49736251836820183,
        [-0.06231032891435159, -0.06336554671476563, -0.06231032891435159, -0.06152860434101719, 0.002416923292293576,
         0.10255449374996041, 0.10196561076585937, 0.09630200408145158],
    ),
}


def _weights(name: str, owners: Tensor, count: int) -> TokenWeights:
    if name == "dapo":
        return per_token_mean(owners, count)
    return per_length_limit(owners, count, 6) if name == "dr_grpo" else per_sequence_mean(owners, count)


def _grpo_losses(name: str, new: Tensor, part: Tensor, owners: Tensor, count: int) -> Tensor:
    ratios = new - OLD[part]
    chosen = sequence_log_ratios(ratios, owners, count) if name == "gspo" else ratios
    return clipped_surrogate(chosen, GROUP_ADVANTAGES[part], 0.2, 0.28) + 0.04 * k3(new, REFERENCE[part])


@pytest.mark.parametrize("name", GRPO)
def test_grpo_and_its_variants_of_trl(name: str) -> None:
    """Oracle: TRL, loss and gradient. The clip acts on both sides: on the second answer from above, on the third from below."""
    expected, slopes = GRPO[name]
    new = _tensor(NEW).requires_grad_()
    weighting = _weights(name, OWNERS, 3)
    loss = (_grpo_losses(name, new, torch.arange(8), OWNERS, 3) * weighting.weights).sum() / weighting.units
    loss.backward()
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-12)
    assert new.grad is not None and new.grad.tolist() == pytest.approx(slopes, rel=1e-11)


@pytest.mark.parametrize("name", GRPO)
def test_a_split_batch_adds_up_to_the_whole(name: str) -> None:
    """Identity: sums and units of {first two answers} and {third answer} add up to those of all three."""
    new = _tensor(NEW)
    whole = _weights(name, OWNERS, 3)
    expected = (_grpo_losses(name, new, torch.arange(8), OWNERS, 3) * whole.weights).sum()
    total, units = torch.zeros((), dtype=torch.float64), 0
    for part, owners, count in ((torch.arange(5), OWNERS[:5], 2), (torch.arange(5, 8), OWNERS[5:] - 2, 1)):
        weighting = _weights(name, owners, count)
        total += (_grpo_losses(name, new[part], part, owners, count) * weighting.weights).sum()
        units += weighting.units
    assert units == whole.units
    assert float(total) == pytest.approx(float(expected), rel=1e-13)


def test_weights_written_by_hand() -> None:
    """By hand: four, one and three tokens; a fourth answer has none and counts as a unit of sequences without adding anything."""
    assert per_token_mean(OWNERS, 4).weights.tolist() == [1.0] * 8 and per_token_mean(OWNERS, 4).units == 8
    by_sequence = per_sequence_mean(OWNERS, 4)
    assert by_sequence.weights.tolist() == [0.25] * 4 + [1.0] + [1 / 3] * 3 and by_sequence.units == 4
    by_limit = per_length_limit(OWNERS, 4, 16)
    assert by_limit.weights.tolist() == [1 / 16] * 8 and by_limit.units == 4


def test_sequence_ratio_is_the_geometric_mean() -> None:
    """By hand: GSPO, eq. 7: exp of the mean log-ratio; one token keeps its own."""
    ratios = sequence_log_ratios(_tensor([0.2, 0.4, -0.3, 1.0]), torch.tensor([0, 0, 0, 1]), 2)
    assert ratios.tolist() == pytest.approx([0.1, 0.1, 0.1, 1.0])


def test_ppo_losses_and_gradients_of_trl() -> None:
    """Oracle: TRL 0.9.6: means over the 8 tokens of the clipped policy and value losses, and the share of clipped tokens."""
    new = _tensor(NEW).requires_grad_()
    values = _tensor([0.6, 0.0, -0.1, 0.4, -0.3, 0.55, 0.4, 0.65]).requires_grad_()
    old_values = _tensor([0.3, 0.1, -0.2, 0.4, 0.2, 0.5, -0.1, 0.6])
    advantages = _tensor([0.8, -0.5, 0.3, 1.2, 1.3, -1.1, 0.4, -0.9])
    returns = _tensor([0.5, -0.4, 0.1, 0.9, 0.9, -0.2, 0.3, 0.7])
    policy_loss = clipped_surrogate(new - OLD, advantages, 0.2, 0.2).mean()
    value_loss = clipped_value_loss(values, old_values, returns, 0.2).mean()
    (policy_loss + value_loss).backward()
    assert float(policy_loss.detach()) == pytest.approx(-0.2857331338395504, rel=1e-12)
    assert float(value_loss.detach()) == pytest.approx(0.15656250000000002, rel=1e-12)
    assert new.grad is not None and values.grad is not None
    assert new.grad.tolist() == pytest.approx(
        [0, 0, -0.039422666114100904, -0.13572561270539393, 0, 0.12441514497994445, 0, 0], rel=1e-12)
    assert values.grad.tolist() == pytest.approx([0.0125, 0.05, -0.025, -0.0625, -0.15, 0.09375, 0.0, -0.00625], rel=1e-12)
    assert float(is_clipped(new - OLD, advantages, 0.2, 0.2).double().mean()) == 0.625


def test_the_clip_case_by_case() -> None:
    """By hand, Schulman et al. 2017, figure 1: with clip 0.2 the ratio 1.5 is cut for A > 0 only, 0.5 for A < 0 only."""
    log_ratios = _tensor([math.log(1.5), math.log(1.5), math.log(0.5), math.log(0.5), 0.0]).requires_grad_()
    advantages = _tensor([2.0, -2.0, 2.0, -2.0, 2.0])
    losses = clipped_surrogate(log_ratios, advantages, 0.2, 0.2)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([-2.4, 3.0, -1.0, 1.6, -2.0])
    assert log_ratios.grad is not None and log_ratios.grad.tolist() == pytest.approx([0.0, 3.0, -1.0, 0.0, -2.0])
    for scale in (1.0, 1e-3):
        assert is_clipped(log_ratios, advantages * scale, 0.2, 0.2).tolist() == [True, False, False, True, False]
    assert not bool(is_clipped(log_ratios, advantages * 0, 0.2, 0.2).any())


def test_at_the_start_the_gradient_is_the_policy_gradient() -> None:
    """Identity: where policy and old policy agree (a tie of the two branches) the slope is -A, as of REINFORCE."""
    new = OLD.clone().requires_grad_()
    losses = clipped_surrogate(new - OLD, GROUP_ADVANTAGES, 0.2, 0.28)
    losses.sum().backward()
    assert torch.equal(losses.detach(), -GROUP_ADVANTAGES)
    assert new.grad is not None and torch.equal(new.grad, -GROUP_ADVANTAGES)


def test_unclipped_values_cost_half_the_square() -> None:
    """Identity: within the clip the value loss is (v - R)^2 / 2 with the slope v - R, also where both branches are equal."""
    values, returns = _tensor([0.3, -0.1, 0.0]).requires_grad_(), _tensor([1.0, -0.5, 0.0])
    losses = clipped_value_loss(values, _tensor([0.2, 0.0, 0.1]), returns, 0.2)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0.245, 0.08, 0.0])
    assert values.grad is not None and values.grad.tolist() == pytest.approx([-0.7, 0.4, 0.0])


def test_gradients_are_the_derivatives() -> None:
    """Oracle: numerical differentiation, away from the kinks."""
    new = _tensor(NEW).requires_grad_()
    for name in GRPO:
        assert torch.autograd.gradcheck(lambda x, name=name: _grpo_losses(name, x, torch.arange(8), OWNERS, 3), new)
    values = _tensor([0.6, 0.05, -0.1, 0.4]).requires_grad_()
    old, returns = _tensor([0.3, 0.1, -0.2, 0.45]), _tensor([0.5, -0.4, 0.1, 0.9])
    assert torch.autograd.gradcheck(lambda v: clipped_value_loss(v, old, returns, 0.2), values)


def test_advantages_and_old_values_are_constants() -> None:
    """By definition: no gradient reaches them."""
    advantages, old, returns = (torch.tensor([0.5], requires_grad=True) for _ in range(3))
    values = torch.tensor([0.4], requires_grad=True)
    (clipped_surrogate(values, advantages, 0.2, 0.2) + clipped_value_loss(values, old, returns, 0.2)).sum().backward()
    assert advantages.grad is None and old.grad is None and returns.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_ratios_stay_finite_and_keep_their_direction(dtype: torch.dtype) -> None:
    """A log-ratio of +-1e4 with either sign of advantage: finite, and nothing is pushed the wrong way (slope of loss = -A or 0)."""
    log_ratios = torch.tensor([1e4, 1e4, -1e4, -1e4, 88.0, 20.0], dtype=dtype, requires_grad=True)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0, -1.0], dtype=dtype)
    losses = clipped_surrogate(log_ratios, advantages, 0.2, 0.2)
    losses.sum().backward()
    assert log_ratios.grad is not None
    assert bool(losses.isfinite().all() and log_ratios.grad.isfinite().all())
    assert (log_ratios.grad * advantages <= 0).all() and float(log_ratios.grad[1]) > 1e8 and float(log_ratios.grad[0]) == 0.0


def test_bounded_exp_is_exp_up_to_20_and_its_tangent_beyond() -> None:
    """Oracle: math.exp; beyond, e^20 (1 + x - 20) by hand; the slope is continuous."""
    below = [-50.0, -1.0, 0.0, 3.0, 19.999]
    assert bounded_exp(_tensor(below)).tolist() == pytest.approx([math.exp(x) for x in below], rel=1e-15)
    assert float(bounded_exp(_tensor([25.0]))) == pytest.approx(math.exp(20) * 6, rel=1e-14)
    assert torch.autograd.gradcheck(bounded_exp, _tensor([-1.0, 5.0]).requires_grad_(), eps=1e-7)
    points = _tensor([20.0 - 1e-9, 20.0 + 1e-9]).requires_grad_()
    bounded_exp(points).sum().backward()
    assert points.grad is not None and points.grad.tolist() == pytest.approx([math.exp(20)] * 2, rel=1e-8)

"""Losses of pairs against TRL's numbers, naive float64 loops, hand-worked values, identities and numerical derivatives.

TRL's numbers were computed once, in float64, by its own functions on `PAIRS`: `DPOTrainer._compute_loss` (sigmoid, hinge, ipo,
robust), `ORPOTrainer.odds_ratio_loss` (float32) and `CPOTrainer.cpo_loss` of TRL 1.16.0; `DPOTrainer.dpo_loss` of 0.9.6 (sigmoid with
label smoothing, rewards) and of 0.8.1 (kto_pair), which later versions no longer have.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tunewright.losses.kto import kl_estimate
from tunewright.losses.logps import mean_by_owner, sum_by_owner
from tunewright.losses.preference import (
    hinge_loss,
    implicit_rewards,
    ipo_loss,
    kto_pair_loss,
    odds_ratio_loss,
    orpo_loss,
    robust_loss,
    sigmoid_loss,
    simpo_loss,
)

# Log-probabilities of the tokens of each answer: chosen and rejected under the policy, chosen and rejected under the reference.
PAIRS = [
    ([-0.916, -1.392, -1.366], [-0.839, -1.012], [-1.05, -0.149, -1.126], [-1.881, -1.89]),
    ([-0.52], [-0.223, -1.927], [-0.804], [-1.424, -2.009]),
    ([-0.154, -0.403], [-1.242], [-0.139, -0.896], [-1.588]),
    ([-1.318, -0.291, -0.503, -1.308], [-1.33], [-0.442, -1.353, -0.524, -1.521], [-0.324]),
]
BETA = 0.3
Loss = Callable[[Tensor, Tensor], Tensor]

# For each pair: TRL's loss, and its derivatives by the log-probability of the first chosen and of the first rejected token.
WITH_REFERENCE: dict[str, tuple[Loss, list[tuple[float, float, float]]]] = {
    "sigmoid": (
        lambda c, r: sigmoid_loss(c, r, BETA),
        [
            (1.299188983596774, -0.21817412686759022, 0.21817412686759022),
            (0.8541829227142713, -0.17231075330425108, 0.17231075330425108),
            (0.6735431877533373, -0.1470303880587463, 0.1470303880587463),
            (0.5019514384724081, -0.1183955380301703, 0.1183955380301703),
        ],
    ),
    "sigmoid, label smoothing 0.2": (
        lambda c, r: sigmoid_loss(c, r, BETA, 0.2),
        [
            (1.103048983596774, -0.1581741268675902, 0.1581741268675902),
            (0.7942429227142713, -0.1123107533042511, 0.1123107533042511),
            (0.6814631877533374, -0.08703038805874629, 0.08703038805874629),
            (0.587511438472408, -0.05839553803017032, 0.05839553803017032),
        ],
    ),
    "robust, label smoothing 0.2": (
        lambda c, r: robust_loss(c, r, BETA, 0.2),
        [
            (1.626088983596774, -0.3181741268675902, 0.3181741268675902),
            (0.9540829227142715, -0.2723107533042511, 0.2723107533042511),
            (0.6603431877533374, -0.2470303880587463, 0.2470303880587463),
            (0.3593514384724081, -0.21839553803017034, 0.21839553803017034),
        ],
    ),
    "hinge": (
        lambda c, r: hinge_loss(c, r, BETA),
        [(1.9807, -0.3, 0.3), (1.2997, -0.3, 0.3), (0.9604, -0.3, 0.3), (0.5722, -0.3, 0.3)],
    ),
    "ipo": (
        lambda c, r: ipo_loss(c, r, BETA),
        [
            (9.463826777777777, -2.0508888888888888, 3.0763333333333334),
            (4.097250694444446, -4.048333333333334, 2.024166666666667),
            (3.145893444444445, -1.7736666666666667, 3.5473333333333334),
            (0.30876544444444454, -0.2778333333333334, 1.1113333333333335),
        ],
    ),
}
# The derivatives here are by the average log-probability.
WITHOUT_REFERENCE: dict[str, tuple[Loss, float, list[tuple[float, float, float]]]] = {
    "orpo": (
        lambda c, r: orpo_loss(c, r, BETA),
        2e-6,  # TRL computes it in float32
        [
            (1.5087352213064829, -1.2600274085998535, 0.30416929721832275),
            (0.6107823145389557, -1.193186953663826, 0.11892069876194),
            (0.3152749705910683, -1.14238141477108, 0.04866509139537811),
            (0.9738109368085861, -1.1707020699977875, 0.13338179886341095),
        ],
    ),
    "simpo": (
        lambda c, r: simpo_loss(c, r, 2.0, 0.5),
        1e-13,
        [
            (1.3860851519144048, -1.499895384454371, 1.499895384454371),
            (0.4339559416167789, -0.7041183958386996, 0.7041183958386996),
            (0.21513390112005568, -0.387133098789521, 0.387133098789521),
            (0.49324894599745484, -0.7787215321015559, 0.7787215321015559),
        ],
    ),
}
EVERY_LOSS: dict[str, Loss] = {
    "sigmoid": lambda c, r: sigmoid_loss(c, r, BETA),
    "conservative": lambda c, r: sigmoid_loss(c, r, BETA, 0.1),
    "robust": lambda c, r: robust_loss(c, r, BETA, 0.1),
    "hinge": lambda c, r: hinge_loss(c, r, BETA),
    "ipo": lambda c, r: ipo_loss(c, r, BETA),
    "kto_pair": lambda c, r: kto_pair_loss(c, r, BETA, torch.tensor(0.7), torch.tensor(0.2)),
    "odds ratio": odds_ratio_loss,
    "orpo": lambda c, r: orpo_loss(c, r, BETA),
    "simpo": lambda c, r: simpo_loss(c, r, 2.0, 0.5),
}


def _tokens(column: int) -> tuple[Tensor, Tensor]:
    answers = [pair[column] for pair in PAIRS]
    owners = [i for i, answer in enumerate(answers) for _ in answer]
    return torch.tensor([v for answer in answers for v in answer], dtype=torch.float64), torch.tensor(owners)


@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_losses_and_gradients_of_trl_with_a_reference(name: str) -> None:
    """Oracle: TRL (versions above), from tokens to pairs; answers of one token are among them."""
    loss, expected = WITH_REFERENCE[name]
    reduce = mean_by_owner if name == "ipo" else sum_by_owner
    (chosen, chosen_owners), (rejected, rejected_owners), (ref_chosen, _), (ref_rejected, _) = (_tokens(i) for i in range(4))
    chosen.requires_grad_(), rejected.requires_grad_()
    losses = loss(
        reduce(chosen, chosen_owners, 4) - reduce(ref_chosen, chosen_owners, 4),
        reduce(rejected, rejected_owners, 4) - reduce(ref_rejected, rejected_owners, 4),
    )
    losses.sum().backward()
    assert chosen.grad is not None and rejected.grad is not None
    firsts = [[int((owners == i).nonzero()[0]) for i in range(4)] for owners in (chosen_owners, rejected_owners)]
    actual = zip(losses.tolist(), chosen.grad[firsts[0]].tolist(), rejected.grad[firsts[1]].tolist(), strict=True)
    for row, numbers in zip(actual, expected, strict=True):
        assert row == pytest.approx(numbers, rel=1e-12)


@pytest.mark.parametrize("name", WITHOUT_REFERENCE)
def test_losses_and_gradients_of_trl_without_a_reference(name: str) -> None:
    """Oracle: TRL (versions above) on the average log-probabilities."""
    loss, tolerance, expected = WITHOUT_REFERENCE[name]
    chosen, rejected = (mean_by_owner(*_tokens(i), 4).requires_grad_() for i in range(2))
    losses = loss(chosen, rejected)
    losses.sum().backward()
    assert chosen.grad is not None and rejected.grad is not None
    for row, numbers in zip(zip(losses.tolist(), chosen.grad.tolist(), rejected.grad.tolist(), strict=True), expected, strict=True):
        assert row == pytest.approx(numbers, rel=tolerance)


def test_kto_pair_and_rewards_of_trl() -> None:
    """Oracle: TRL 0.8.1 gives the two halves of each pair; ours is their mean. Rewards: TRL 0.9.6."""
    halves = [0.6446089221993176, 0.5263567964728106, 0.5118290423339722, 0.5161756033217931]
    halves_rejected = [0.6401464879689667, 0.59505437762867, 0.52592672535031, 0.4251175172999909]
    sums = [sum_by_owner(*_tokens(i), 4) for i in range(4)]
    chosen, rejected = sums[0] - sums[2], sums[1] - sums[3]
    chosen_kl, rejected_kl = (kl_estimate(ratios.sum(), torch.tensor(4)) for ratios in (chosen, rejected))
    losses = kto_pair_loss(chosen, rejected, BETA, chosen_kl, rejected_kl)
    assert losses.tolist() == pytest.approx([(a + b) / 2 for a, b in zip(halves, halves_rejected, strict=True)], rel=1e-12)
    assert implicit_rewards(chosen, BETA).tolist() == pytest.approx([-0.4047, 0.0852, 0.1434, 0.126], rel=1e-12)
    assert implicit_rewards(rejected, BETA).tolist() == pytest.approx([0.576, 0.3849, 0.1038, -0.3018], rel=1e-12)


def test_no_gradient_through_kl_estimates_and_rewards() -> None:
    """By definition: both are constants of the step."""
    chosen, rejected = torch.tensor([0.5], requires_grad=True), torch.tensor([-0.2], requires_grad=True)
    kls = torch.tensor([0.3, 0.1], requires_grad=True)
    kto_pair_loss(chosen, rejected, BETA, kls[0], kls[1]).sum().backward()
    assert kls.grad is None
    assert not implicit_rewards(chosen, BETA).requires_grad


@pytest.mark.parametrize("beta", [0.05, 0.1, 2.0])
def test_equal_policy_and_reference_cost_ln_2(beta: float) -> None:
    """Identity: all log-ratios are zero, so the loss is ln 2 and the derivatives are -beta / 2 and beta / 2; also with smoothing e,
    where they are -(1 - 2 e) beta / 2. IPO: 1 / (4 beta^2); hinge: 1; kto_pair without divergence: 1/2."""
    chosen, rejected = (torch.zeros(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    losses = sigmoid_loss(chosen, rejected, beta)
    losses.sum().backward()
    assert losses.tolist() == [math.log(2)] * 3
    assert chosen.grad is not None and rejected.grad is not None
    assert chosen.grad.tolist() == pytest.approx([-beta / 2] * 3) and rejected.grad.tolist() == pytest.approx([beta / 2] * 3)
    smoothed = sigmoid_loss(chosen, rejected, beta, 0.1)
    assert smoothed.tolist() == pytest.approx([math.log(2)] * 3)
    assert torch.autograd.grad(smoothed.sum(), chosen)[0].tolist() == pytest.approx([-0.8 * beta / 2] * 3)
    zero = torch.zeros((), dtype=torch.float64)
    assert ipo_loss(chosen, rejected, beta).tolist() == pytest.approx([1 / (4 * beta**2)] * 3)
    assert hinge_loss(chosen, rejected, beta).tolist() == [1.0] * 3
    assert kto_pair_loss(chosen, rejected, beta, zero, zero).tolist() == [0.5] * 3


def test_ties_of_the_losses_without_a_reference() -> None:
    """By hand: equal answers have odds ratio 1 (ln 2), and SimPO's loss is -log sigmoid(-gamma)."""
    average = torch.tensor([-0.7, -0.01], dtype=torch.float64)
    assert odds_ratio_loss(average, average).tolist() == pytest.approx([math.log(2)] * 2)
    assert orpo_loss(average, average, 0.1).tolist() == pytest.approx([0.7 + 0.1 * math.log(2), 0.01 + 0.1 * math.log(2)])
    assert simpo_loss(average, average, 2.0, 0.5).tolist() == pytest.approx([math.log(1 + math.exp(0.5))] * 2)


def test_values_worked_by_hand() -> None:
    """By hand. ORPO: P = 3/4 against 1/4 has odds 3 and 1/3, so the ratio is 9 and the term -ln(9/10). SimPO: 2 (ln 4 - ln 2) - 1/2.
    IPO: (1.5 - 1 / 0.2)^2. Hinge beyond its margin: 0. DPO: h = 2 ln 3 and beta 1/2 give sigmoid 3/4."""
    high, low = (torch.tensor([math.log(p)], dtype=torch.float64) for p in (0.75, 0.25))
    assert float(odds_ratio_loss(high, low)) == pytest.approx(-math.log(0.9), rel=1e-12)
    assert float(orpo_loss(high, low, 0.5)) == pytest.approx(-math.log(0.75) - 0.5 * math.log(0.9), rel=1e-12)
    half = torch.tensor([math.log(0.5)], dtype=torch.float64)
    assert float(simpo_loss(half, low, 2.0, 0.5)) == pytest.approx(math.log(1 + math.exp(-(2 * math.log(2) - 0.5))), rel=1e-12)
    gap, zero = torch.tensor([1.5], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    assert float(ipo_loss(gap, zero, 0.1)) == pytest.approx(12.25)
    assert float(hinge_loss(gap, zero, 1.0)) == 0.0 and float(hinge_loss(zero, gap, 1.0)) == 2.5
    nine = torch.tensor([2 * math.log(3)], dtype=torch.float64)
    assert float(sigmoid_loss(nine, zero, 0.5)) == pytest.approx(-math.log(0.75), rel=1e-12)


def test_smoothing_in_both_forms_is_the_mixture_of_the_papers() -> None:
    """Oracle: the definitions with e = 0.3. Conservative: (1 - e) l(h) + e l(-h). Robust: unbiased, so its expectation over labels
    flipped with probability e is l(h)."""
    h, zero, e = torch.tensor([-1.3, 0.2, 4.0], dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 0.3
    plain, flipped = sigmoid_loss(h, zero, BETA), sigmoid_loss(zero, h, BETA)
    assert torch.allclose(sigmoid_loss(h, zero, BETA, e), (1 - e) * plain + e * flipped, atol=1e-14)
    expectation = (1 - e) * robust_loss(h, zero, BETA, e) + e * robust_loss(zero, h, BETA, e)
    assert torch.allclose(expectation, plain, atol=1e-14)
    assert torch.allclose(robust_loss(h, zero, BETA, 0.0), plain, atol=1e-14)


@pytest.mark.parametrize("name", EVERY_LOSS)
def test_gradients_are_the_derivatives(name: str) -> None:
    """Oracle: numerical differentiation in float64, away from the kink of the hinge."""
    chosen = torch.tensor([-0.2, -1.7, -3.1, -0.9], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([-0.9, -0.4, -3.0, -0.05], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(EVERY_LOSS[name], (chosen, rejected))


@pytest.mark.parametrize("name", EVERY_LOSS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_inputs_stay_finite(name: str, dtype: torch.dtype) -> None:
    """A loss and its gradients must be finite where a sigmoid saturates and where a probability is 1 or 0 in floating point; a larger
    chosen log-probability must never cost more (ipo excepted, whose margin has a best value)."""
    extremes = [0.0, -1e-30, -1e-9, -1e-7, -1.0, -100.0, -1e4] + ([] if name in ("odds ratio", "orpo") else [100.0, 1e4])
    chosen, rejected = torch.meshgrid(torch.tensor(extremes, dtype=dtype), torch.tensor(extremes, dtype=dtype), indexing="ij")
    chosen, rejected = chosen.clone().requires_grad_(), rejected.clone().requires_grad_()
    losses = EVERY_LOSS[name](chosen, rejected)
    losses.sum().backward()
    assert chosen.grad is not None and rejected.grad is not None
    assert bool(losses.isfinite().all() and chosen.grad.isfinite().all() and rejected.grad.isfinite().all())
    if name not in ("ipo", "conservative"):
        assert bool((chosen.grad <= 0).all() and (rejected.grad >= 0).all())


def test_log_odds_near_certainty_keep_their_precision() -> None:
    """Oracle: 1 - e^-x = x (1 - x / 2 + x^2 / 6) for small x, so the log-odds of P = e^-x against P = 1/2 are -x - ln(that)."""
    for x in (1e-3, 1e-6, 1e-9):
        sure, even = (torch.tensor([v], dtype=torch.float64) for v in (-x, math.log(0.5)))
        log_odds = -x - math.log(x * (1 - x / 2 + x**2 / 6))
        assert float(odds_ratio_loss(even, sure)) == pytest.approx(math.log1p(math.exp(log_odds)), rel=1e-11)


def test_shifting_both_answers_changes_nothing_but_orpo_and_kto() -> None:
    """Identity: DPO, hinge, IPO and SimPO see only the difference of the two."""
    chosen, rejected = torch.tensor([0.3, -2.0], dtype=torch.float64), torch.tensor([1.3, -2.5], dtype=torch.float64)
    for name in ("sigmoid", "conservative", "robust", "hinge", "ipo", "simpo"):
        assert torch.allclose(EVERY_LOSS[name](chosen - 5, rejected - 5), EVERY_LOSS[name](chosen, rejected), atol=1e-12)

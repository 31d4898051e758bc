"""KL estimators against exact expectations over a small vocabulary, controllers against TRL 0.9.6 (computed once) and by hand."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch

from tunewright.errors import NumericError
from tunewright.rl.kl import AdaptiveKL, FixedKL, adapted_coefficient, k1, k2, k3


def _distributions() -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.randn(2, 11, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return logits[0].requires_grad_(), torch.log_softmax(logits[1], -1)


def test_k1_and_k3_are_unbiased_and_k2_is_close() -> None:
    """Oracle: the expectation over all 11 tokens is the exact divergence (torch.nn.functional.kl_div); k2 only approaches it for
    distributions close to each other, by the second-order expansion of KL."""
    logits, reference = _distributions()
    policy = torch.log_softmax(logits.detach(), -1)
    exact = float(torch.nn.functional.kl_div(reference, policy, log_target=True, reduction="sum"))
    for estimator in (k1, k3):
        assert float((policy.exp() * estimator(policy, reference)).sum()) == pytest.approx(exact, rel=1e-12)
    near = torch.log_softmax(logits.detach() + 1e-3 * reference, -1)
    exact_near = float(torch.nn.functional.kl_div(near, policy, log_target=True, reduction="sum"))
    assert float((policy.exp() * k2(policy, near)).sum()) == pytest.approx(exact_near, rel=1e-2)


def test_only_the_gradient_of_k2_is_that_of_the_divergence() -> None:
    """Oracle: the exact divergence's gradient by autograd; the expectation of the estimators' gradients, sampling held fixed. That of k1
    vanishes, and that of k3 is the gradient of the divergence the other way round."""
    logits, reference = _distributions()
    weights = torch.softmax(logits.detach(), -1)

    def gradient_of(value: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(value, logits)[0]

    policy = torch.log_softmax(logits, -1)
    exact = gradient_of((policy.exp() * (policy - reference)).sum())
    sampled = {k: gradient_of((weights * k(torch.log_softmax(logits, -1), reference)).sum()) for k in (k1, k2, k3)}
    reverse = gradient_of((reference.exp() * (reference - torch.log_softmax(logits, -1))).sum())
    assert torch.allclose(sampled[k2], exact, atol=1e-14)
    assert torch.allclose(sampled[k1], torch.zeros(11, dtype=torch.float64), atol=1e-14)
    assert torch.allclose(sampled[k3], reverse, atol=1e-14)


def test_single_tokens_worked_by_hand() -> None:
    """By hand: pi = 1/2 and pi_ref = 1/8 give log-ratio ln 4: k1 = ln 4, k2 = (ln 4)^2 / 2, k3 = 1/4 - 1 + ln 4. Equal ones give 0."""
    policy, reference = torch.tensor([0.5, 0.3], dtype=torch.float64).log(), torch.tensor([0.125, 0.3], dtype=torch.float64).log()
    assert k1(policy, reference).tolist() == pytest.approx([1.3862943611198906, 0.0])
    assert k2(policy, reference).tolist() == pytest.approx([0.9609060278364028, 0.0])
    assert k3(policy, reference).tolist() == pytest.approx([0.6362943611198906, 0.0])
    assert k1(reference, policy).tolist() == pytest.approx([-1.3862943611198906, 0.0])


@pytest.mark.parametrize("estimator", [k1, k2, k3])
def test_derivatives_and_extremes(estimator: object) -> None:
    """Oracle: numerical differentiation; at differences of 1e4 all is finite and pulls towards the reference (k2, k3)."""
    assert callable(estimator)
    policy = torch.tensor([-0.5, -3.0, -1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: estimator(p, torch.tensor([-1.0, -0.2, -1.1], dtype=torch.float64)), policy)
    far, reference = torch.tensor([-1e4, 0.0], requires_grad=True), torch.tensor([0.0, -1e4])
    values = estimator(far, reference)
    values.sum().backward()
    assert far.grad is not None and bool(values.isfinite().all() and far.grad.isfinite().all())
    if estimator is not k1:
        assert bool((values >= 0).all()) and float(far.grad[0]) < 0 < float(far.grad[1])


def test_the_adaptive_controller_of_trl() -> None:
    """Oracle: TRL 0.9.6, `AdaptiveKLController(0.2, 6, 10000)`; the error is cut at both ends (KL 9 and 2, and a negative estimate)."""
    controller, coefficients = AdaptiveKL(0.2, 6.0, 10000.0), []
    for kl, answers in ((9.0, 128), (6.3, 128), (2.0, 64), (-1.0, 256)):
        controller = controller.updated(kl, answers)
        coefficients.append(controller.coefficient)
    assert coefficients == pytest.approx([0.200512, 0.20064032767999998, 0.2003835080605696, 0.19935754449929946], rel=1e-14)


def test_one_update_by_hand() -> None:
    """By hand: KL 6.6 of target 6 is an error of 0.1; 500 answers of a horizon of 1000 make the factor 1.05. At the target it is 1."""
    assert adapted_coefficient(0.2, 6.6, 6.0, 500, 1000.0) == pytest.approx(0.21)
    assert adapted_coefficient(0.2, 6.0, 6.0, 500, 1000.0) == 0.2
    assert adapted_coefficient(0.2, 0.0, 6.0, 1000, 100.0) == pytest.approx(0.16)  # ten horizons at a time change no more than one
    assert FixedKL(0.3).updated(100.0, 500) == FixedKL(0.3)


def test_the_state_is_three_numbers_that_survive_json_exactly() -> None:
    """Identity: saved after two updates and restored, the third gives the same bits."""
    controller = AdaptiveKL(0.2, 6.0, 10000.0).updated(7.1, 33).updated(5.3, 33)
    restored = AdaptiveKL(**json.loads(json.dumps(asdict(controller))))
    assert restored == controller and restored.updated(6.7, 33) == controller.updated(6.7, 33)


@pytest.mark.parametrize("kl", [float("nan"), float("inf")])
def test_a_divergence_that_is_not_finite_stops_the_run(kl: float) -> None:
    """Otherwise the error of +-0.2 (inf) or the coefficient NaN (nan) would go on unseen."""
    with pytest.raises(NumericError, match=f"the KL divergence between policy and reference is {kl}; lower learning_rate"):
        adapted_coefficient(0.2, kl, 6.0, 8, 10000.0)

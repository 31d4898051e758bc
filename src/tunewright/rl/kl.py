"""Estimators of KL(policy || reference) from sampled tokens, and controllers of its coefficient.

Axes: any shape [...]; a token's log-probabilities under policy and reference, sampled from the policy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from tunewright.errors import NumericError
from tunewright.losses.policy import bounded_exp

LARGEST_ERROR = 0.2  # Ziegler et al. 2019, section 2.2


def k1(policy: Tensor, reference: Tensor) -> Tensor:
    """log pi - log pi_ref, Schulman 2020, *Approximating KL divergence*: unbiased, of either sign, large variance. [...] -> [...]."""
    return policy - reference


def k2(policy: Tensor, reference: Tensor) -> Tensor:
    """(log pi - log pi_ref)^2 / 2, Schulman 2020: never negative, small variance, biased. [...] -> [...].

    Its gradient is on average that of the KL divergence, which cannot be said of the other two.
    """
    return (policy - reference) ** 2 / 2


def k3(policy: Tensor, reference: Tensor) -> Tensor:
    """r - 1 - log r with r = pi_ref / pi, Schulman 2020; GRPO's penalty, Shao et al. 2024, eq. 4. [...] -> [...].

    Unbiased like k1 and never negative like k2. Beyond a log-ratio of 20 the exponential goes on as a straight
    line (`losses.policy.bounded_exp`), so nothing overflows.
    """
    log_ratios = reference - policy
    return bounded_exp(log_ratios) - 1 - log_ratios


def adapted_coefficient(coefficient: float, kl: float, target: float, answers: int, horizon: float) -> float:
    """The next coefficient of the KL penalty, Ziegler et al. 2019, section 2.2.

    coefficient * (1 + clip(kl / target - 1, -0.2, 0.2) * answers / horizon). `kl` in nats: the mean over answers of the sum over tokens
    of `k1`; `answers`: how many were generated since the last change, over all ranks. The paper's gain of 0.1 for a batch is
    answers / horizon here, as in TRL, so that it does not depend on the batch size; at most 1: five horizons at a time would make the
    penalty a prize.

    Raises NumericError for a KL that is not finite.
    """
    if not math.isfinite(kl):
        raise NumericError(
            f"the KL divergence between policy and reference is {kl}",
            mend="lower learning_rate, or check that the reference model is the right one",
        )
    error = min(max(kl / target - 1, -LARGEST_ERROR), LARGEST_ERROR)
    return coefficient * (1 + error * min(answers / horizon, 1.0))


@dataclass(frozen=True, slots=True)
class FixedKL:
    """A coefficient of the KL penalty that stays as it is."""

    coefficient: float

    def updated(self, kl: float, answers: int) -> FixedKL:
        """Itself."""
        return self


@dataclass(frozen=True, slots=True)
class AdaptiveKL:
    """A coefficient that seeks to keep the KL divergence near `target` nats for each answer."""

    coefficient: float
    target: float
    horizon: float

    def updated(self, kl: float, answers: int) -> AdaptiveKL:
        """The controller after a batch of `answers` answers whose mean divergence was `kl` nats: see `adapted_coefficient`."""
        return replace(self, coefficient=adapted_coefficient(self.coefficient, kl, self.target, answers, self.horizon))

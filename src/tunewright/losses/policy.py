"""Policy-gradient losses: PPO's clipped objectives and the variants of GRPO, one number for each token.

Axes: A answer tokens of all sequences of a batch, N sequences (`owners [A]`, `count` as in `logps`). Functions that say [...] take any
shape. Log-ratio: log pi(token) minus log pi_old(token), where pi_old generated the answer.

GRPO's loss of a token is `clipped_surrogate` (plus its coefficient times `rl.kl.k3`), of a batch `(losses * weights).sum()` with one of
the `TokenWeights` below. The variants differ in those weights, in the advantages (`rl.advantages`) and in the ratio:

    GRPO      per_sequence_mean,  group_advantages     Shao et al. 2024, eq. 3
    DAPO      per_token_mean,     clip_low < clip_high Yu et al. 2025, eq. 8
    Dr. GRPO  per_length_limit,   centred_advantages   Liu et al. 2025, section 3.2
    GSPO      per_sequence_mean,  sequence_log_ratios  Zheng et al. 2025, eqs. 5 to 7
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tunewright.losses.logps import count_by_owner, mean_by_owner

LARGEST_EXPONENT = 20.0  # e^20 = 5e8


def bounded_exp(exponents: Tensor) -> Tensor:
    """exp, continued by its tangent beyond LARGEST_EXPONENT, so that value and gradient stay finite. [...] -> [...], float32 or wider.

    A ratio that large occurs only when training has gone wrong. Its gradient keeps its direction (a cap's would vanish), and
    infinity times the zero gradient of a clipped branch (which is NaN) cannot occur. Clipping by the norm bounds the step.
    """
    return exponents.clamp(max=LARGEST_EXPONENT).exp() * (1 + (exponents - LARGEST_EXPONENT).clamp(min=0.0))


def clipped_surrogate(log_ratios: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """PPO's clipped surrogate as a loss, Schulman et al. 2017, eq. 7: -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A).

    log_ratios [...] float, advantages [...] float -> [...]. PPO and GRPO have clip_low == clip_high (the paper's epsilon); DAPO's
    "clip-higher" (Yu et al. 2025, eq. 10) a larger clip_high. Advantages are constants: no gradient goes through them.
    """
    ratios = bounded_exp(log_ratios)
    constants = advantages.detach()
    return -torch.minimum(ratios * constants, ratios.clamp(1 - clip_low, 1 + clip_high) * constants)


def is_clipped(log_ratios: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """Where `clipped_surrogate` has no gradient: the ratio went beyond the clip in the direction of the advantage. [...] -> [...] bool."""
    ratios = bounded_exp(log_ratios.detach())
    return ((ratios > 1 + clip_high) & (advantages > 0)) | ((ratios < 1 - clip_low) & (advantages < 0))


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """1/2 max((v - R)^2, (clip(v, v_old - clip, v_old + clip) - R)^2). [...] three times -> [...].

    The value loss of PPO's authors' code and of TRL 0.9 (Schulman et al. 2017, eq. 9, has the plain square): a value that moved further
    than `clip` away from the one at the time of generation gets no gradient, unless moving made it worse. Old values and returns are
    constants.
    """
    old, targets = old_values.detach(), returns.detach()
    clipped = torch.clamp(values, old - clip, old + clip)
    return 0.5 * torch.maximum((values - targets) ** 2, (clipped - targets) ** 2)


def sequence_log_ratios(log_ratios: Tensor, owners: Tensor, count: int) -> Tensor:
    """GSPO's log-ratio, Zheng et al. 2025, eq. 7: the mean over a sequence's tokens, given to each of them. [A] -> [A].

    With `per_sequence_mean` weights the tokens' losses add up to the paper's one loss for each sequence (eq. 5).
    """
    return mean_by_owner(log_ratios, owners, count)[owners]


@dataclass(frozen=True, slots=True)
class TokenWeights:
    """How the losses of tokens become a sum over units: sum(weights * losses) over all batches, divided by the sum of `units`.

    weights [A] float64. Both sums go over micro-batches and ranks before the division, so no split of the sequences changes the result.
    """

    weights: Tensor
    units: int


def per_token_mean(owners: Tensor, count: int) -> TokenWeights:
    """Every token counts the same (DAPO, Yu et al. 2025, eq. 8; also PPO's mean). Units: tokens. owners [A] -> weights [A]."""
    return TokenWeights(torch.ones_like(owners, dtype=torch.float64), owners.numel())


def per_sequence_mean(owners: Tensor, count: int) -> TokenWeights:
    """Every sequence counts the same, its tokens share it (GRPO, Shao et al. 2024, eq. 3). Units: sequences. owners [A] -> weights [A]."""
    return TokenWeights(1.0 / count_by_owner(owners, count).double()[owners], count)


def per_length_limit(owners: Tensor, count: int, max_tokens: int) -> TokenWeights:
    """A token counts 1 / max_tokens, whatever its answer's length (Dr. GRPO, Liu et al. 2025, section 3.2). Units: sequences.

    max_tokens is the generation's limit, a constant: long wrong answers are not let off by their length. owners [A] -> weights [A].
    """
    return TokenWeights(torch.full_like(owners, 1.0 / max_tokens, dtype=torch.float64), count)

"""KTO: single answers marked desirable or undesirable. Axes: R rows."""

from __future__ import annotations

import torch
from torch import Tensor


def kto_loss(
    logratios: Tensor, desirable: Tensor, kl: Tensor, beta: float, desirable_weight: float = 1.0, undesirable_weight: float = 1.0
) -> Tensor:
    """KTO, Ethayarajh et al. 2024, eq. 8: weight minus value of each row. logratios [R] float, desirable [R] bool, kl scalar -> [R].

    logratios are h = log pi(y|x) - log pi_ref(y|x), summed over the answer's tokens. A desirable row costs
    desirable_weight (1 - sigmoid(beta (h - kl))), another one undesirable_weight (1 - sigmoid(beta (kl - h))). `kl` is `kl_estimate`'s
    number for the whole optimizer step; no gradient goes through it, as in the paper.
    """
    gains = logratios - kl.detach()
    losses = torch.sigmoid(-beta * torch.where(desirable, gains, -gains))
    return torch.where(desirable, desirable_weight * losses, undesirable_weight * losses)


def kl_estimate(logratio_sum: Tensor, count: Tensor) -> Tensor:
    """The reference point z_0, Ethayarajh et al. 2024, section 4.1: max(0, mean of log pi(y'|x) - log pi_ref(y'|x)).

    logratio_sum [...], count scalar -> [...]: an estimate for each sum. The pairs are mismatched: prompt x with the answer y' to another
    prompt. Sum and count come apart so that both can be added up over micro-batches and ranks first: clamping each rank's mean and
    averaging those gives another number. Zero for a count of zero.
    """
    return (logratio_sum.detach() / count.clamp(min=1)).clamp(min=0.0)

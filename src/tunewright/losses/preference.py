"""Losses over pairs of a chosen and a rejected answer, one number for each pair.

Axes: B pairs. All take log-probabilities of whole answers given their prompt, and come in two kinds:

- With a reference model: the arguments are the log-ratios h = log pi(y|x) - log pi_ref(y|x) of the chosen and of the rejected answer,
  so that `policy == reference` is h = 0. `beta` is the strength of the pull towards the reference (`pref_beta`).
- Without one (orpo, simpo): the arguments are the policy's own log-probabilities, averaged over the answer's tokens.

Sums or averages over tokens: sums for sigmoid, robust, hinge and kto_pair; averages for ipo, orpo and simpo (`logps.mean_by_owner`).
Adding a share of the chosen answer's cross-entropy (`pref_ftx`) is the stage's business.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def sigmoid_loss(chosen: Tensor, rejected: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """DPO, Rafailov et al. 2023, eq. 7: -log sigmoid(beta (h_chosen - h_rejected)). Log-ratios [B], [B] -> [B].

    `label_smoothing` in [0, 0.5] is the probability that a pair is labelled the wrong way round, in the conservative form (cDPO,
    Mitchell 2023): the cross-entropy against a target of 1 - label_smoothing instead of 1. This is what `dpo_label_smoothing`
    means, here as in LLaMA-Factory and in the `sigmoid` loss of TRL before 1.0. The best h is finite; see `robust_loss` for the other form.
    """
    margins = beta * (chosen - rejected)
    return -(1 - label_smoothing) * logsigmoid(margins) - label_smoothing * logsigmoid(-margins)


def robust_loss(chosen: Tensor, rejected: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """Robust DPO, Chowdhury et al. 2024, section 3.1. Log-ratios [B], [B] -> [B]; label_smoothing in [0, 0.5).

    ((1 - e) l(h) - e l(-h)) / (1 - 2 e) with l the DPO loss: its expectation over labels flipped with probability e is the loss of the
    true labels. Unlike the conservative form it subtracts the flipped pair, so it has no lower bound.
    """
    margins = beta * (chosen - rejected)
    unflipped, flipped = -logsigmoid(margins), -logsigmoid(-margins)
    return ((1 - label_smoothing) * unflipped - label_smoothing * flipped) / (1 - 2 * label_smoothing)


def hinge_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """SLiC's ranking term, Zhao et al. 2023 (SLiC-HF), on DPO's margin: max(0, 1 - beta (h_chosen - h_rejected)).

    Log-ratios [B], [B] -> [B]. SLiC has no reference model; taking DPO's margin is of Liu et al. 2024 (RSO), TRL and LLaMA-Factory.
    At the kink the gradient is 0.
    """
    return torch.relu(1 - beta * (chosen - rejected))


def ipo_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """IPO, Azar et al. 2023, eq. 17: (h_chosen - h_rejected - 1 / (2 beta))^2. Log-ratios averaged over tokens [B], [B] -> [B].

    beta is the paper's tau. The paper leaves the averaging open; its authors confirmed it to TRL, and LLaMA-Factory averages too:
    with sums the target margin 1 / (2 beta) would be a different one for each answer length.
    """
    return (chosen - rejected - 1 / (2 * beta)) ** 2


def kto_pair_loss(chosen: Tensor, rejected: Tensor, beta: float, chosen_kl: Tensor, rejected_kl: Tensor) -> Tensor:
    """KTO on pairs, Ethayarajh et al. 2023, *HALOs*, eq. 7: the mean of the pair's two halves. Log-ratios [B], [B] -> [B].

    1 - sigmoid(beta (h_chosen - rejected_kl)) and 1 - sigmoid(beta (chosen_kl - h_rejected)). The KL estimates are scalars: the mean
    log-ratio of all chosen (rejected) answers of the *optimizer step*, clamped at zero (`kto.kl_estimate`); each half takes the
    other's. TRL 0.8 let the gradient through them and took the micro-batch's mean; the report does neither, so here they are constants.
    """
    return (torch.sigmoid(-beta * (chosen - rejected_kl.detach())) + torch.sigmoid(-beta * (chosen_kl.detach() - rejected))) / 2


def odds_ratio_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """ORPO's odds-ratio term, Hong et al. 2024, eq. 7: -log sigmoid(log odds(chosen) - log odds(rejected)). [B], [B] -> [B].

    Average log-probabilities; odds(y) = P / (1 - P) with P = exp(average).
    """
    return -logsigmoid(_log_odds(chosen) - _log_odds(rejected))


def orpo_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """ORPO, Hong et al. 2024, eq. 6: cross-entropy of the chosen answer plus beta (the paper's lambda) times the odds-ratio term.

    Average log-probabilities of the policy [B], [B] -> [B]. The cross-entropy is the mean over the answer's tokens.
    """
    return beta * odds_ratio_loss(chosen, rejected) - chosen


def simpo_loss(chosen: Tensor, rejected: Tensor, beta: float, gamma: float) -> Tensor:
    """SimPO, Meng et al. 2024, eq. 6: -log sigmoid(beta (chosen - rejected) - gamma). Average log-probabilities [B], [B] -> [B].

    gamma (`simpo_gamma`) is the target margin of the *rewards* as in the paper, not of the log-probabilities: their margin is
    gamma / beta, which is how LLaMA-Factory and TRL write the same number.
    """
    return -logsigmoid(beta * (chosen - rejected) - gamma)


def implicit_rewards(logps: Tensor, beta: float) -> Tensor:
    """DPO's reward up to a constant of the prompt, Rafailov et al. 2023, eq. 5: beta h, for logging, without a gradient. [B] -> [B].

    For orpo and simpo give the average log-probabilities themselves, as LLaMA-Factory and TRL do.
    """
    return beta * logps.detach()


def _log_odds(average_logps: Tensor) -> Tensor:
    """log(P / (1 - P)) for P = exp(average_logps). A P within one rounding step of 1 counts as that step, so that nothing is infinite."""
    below_zero = average_logps.clamp(max=-torch.finfo(average_logps.dtype).eps)
    return average_logps - torch.log(-torch.expm1(below_zero))

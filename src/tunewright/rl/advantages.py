"""From scores of answers to advantages of tokens.

Axes: B answers, T tokens of the longest one, P prompts, G answers to each prompt. Rows are padded: mask [B, T] bool says which places
are tokens; results are zero elsewhere. Nothing here has a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

STD_FLOOR = 1e-4  # added to a group's standard deviation, as in TRL: equal rewards give zero advantages instead of 0 / 0
VARIANCE_FLOOR = 1e-8  # added to the variance when whitening, as in TRL 0.9


@torch.no_grad()
def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """The reward of each token, Ouyang et al. 2022, eq. 2: -coefficient * kl everywhere, and the answer's score at its last token.

    scores [B], kl [B, T] (an estimator of `rl.kl` for each token), mask [B, T] -> [B, T]. An answer without a token has no reward.
    """
    rewards = torch.where(mask, -coefficient * kl, 0.0)
    is_last = mask & (mask.flip(-1).cumsum(-1).flip(-1) == 1)
    return rewards + torch.where(is_last, scores.unsqueeze(-1), 0.0)


@torch.no_grad()
def generalized_advantages(rewards: Tensor, values: Tensor, mask: Tensor, discount: float, decay: float) -> tuple[Tensor, Tensor]:
    """GAE, Schulman et al. 2015, eq. 16: (advantages, returns) of each token. rewards, values, mask [B, T] -> [B, T], [B, T].

    delta_t = r_t + discount * v_{t+1} - v_t and A_t = delta_t + discount * decay * A_{t+1}, over the row's tokens only: a place that is
    no token is passed over, wherever it is, and after the last one value and advantage are zero (the answer has ended). Returns are
    advantages + values, the targets of the value head. The paper's gamma is `discount`, its lambda `decay`.
    """
    advantages = torch.zeros_like(values)
    next_value = next_advantage = values.new_zeros(values.shape[0])
    for place in reversed(range(values.shape[1])):
        is_token, value = mask[:, place], values[:, place]
        advantage = rewards[:, place] + discount * next_value - value + discount * decay * next_advantage
        advantages[:, place] = torch.where(is_token, advantage, 0.0)
        next_value = torch.where(is_token, value, next_value)
        next_advantage = torch.where(is_token, advantage, next_advantage)
    return advantages, torch.where(mask, advantages + values, 0.0)


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and sum of squared deviations of a set of numbers: plain numbers, so `dataclasses.asdict` saves them exactly."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def merged(self, other: Moments) -> Moments:
        """The moments of both sets together, Chan et al. 1979, eq. 2.1. Merge ranks in rank order, so that all get the same bits."""
        if self.count == 0:
            return other
        count = self.count + other.count
        difference = other.mean - self.mean
        mean = self.mean + difference * other.count / count
        return Moments(count, mean, self.squares + other.squares + difference**2 * self.count * other.count / count)

    @property
    def variance(self) -> float:
        """With Bessel's correction (n - 1); 0 for fewer than two numbers."""
        return self.squares / (self.count - 1) if self.count > 1 else 0.0


@torch.no_grad()
def moments_of(values: Tensor) -> Moments:
    """The moments of a tensor of any shape, in float64 (of padded rows: `moments_of(rows[mask])`). Equal numbers have a variance of
    exactly zero, because the first of them is taken off before: their mean by itself may be rounded."""
    if values.numel() == 0:
        return Moments()
    wide = values.double().flatten()
    offsets = wide - wide[0]
    mean = offsets.mean()
    return Moments(wide.numel(), float(wide[0] + mean), float(((offsets - mean) ** 2).sum()))


@torch.no_grad()
def whiten(values: Tensor, mask: Tensor, moments: Moments) -> Tensor:
    """(values - mean) / standard deviation, as PPO does with advantages. values, mask [B, T] -> [B, T].

    `moments` are those of the tokens of the whole batch over all ranks: with each rank's own, two ranks would not equal one.
    """
    return torch.where(mask, (values - moments.mean) / math.sqrt(moments.variance + VARIANCE_FLOOR), 0.0)


@torch.no_grad()
def whiten_around_mean(values: Tensor, mask: Tensor, moments: Moments) -> Tensor:
    """`whiten` with the mean put back, for rewards (`ppo_whiten_rewards`), whose level must survive. values, mask [B, T] -> [B, T].

    TRL 0.9 puts the mean back at padding too, from where GAE carries it into the answers; here padding stays zero.
    """
    return torch.where(mask, whiten(values, mask, moments) + moments.mean, 0.0)


@torch.no_grad()
def normalized_scores(scores: Tensor, moments: Moments) -> Tensor:
    """(scores - mean) / standard deviation over all scores of the run so far, these included (`ppo_score_norm`). [B] -> [B].

    The stage keeps `moments` and merges each batch's into them first: `moments = moments.merged(moments_of(scores))`. Where the
    deviation is zero (a single score, or all equal) the scores are only centred.
    """
    deviation = math.sqrt(moments.variance)
    return (scores - moments.mean) / (deviation if deviation > 0 else 1.0)


@torch.no_grad()
def group_advantages(rewards: Tensor) -> Tensor:
    """GRPO, Shao et al. 2024, section 4.1.2: (reward - mean) / standard deviation within each prompt's group. [P, G] -> [P, G].

    The deviation has Bessel's correction and 1e-4 is added to it, as in TRL. Equal rewards, or a group of one, give exactly zero.
    """
    return _by_group(rewards, lambda centred: centred / (_deviation(centred) + STD_FLOOR))


@torch.no_grad()
def centred_advantages(rewards: Tensor) -> Tensor:
    """Dr. GRPO, Liu et al. 2025, section 3.2: reward - mean of the prompt's group, not divided, so that easy and hard prompts count alike.

    [P, G] -> [P, G]. Equal rewards, or a group of one, give exactly zero.
    """
    return _by_group(rewards, lambda centred: centred)


def _by_group(rewards: Tensor, scale: Callable[[Tensor], Tensor]) -> Tensor:
    """`scale` of the rewards minus their group's mean. Taking the first reward off before keeps equal rewards exactly zero."""
    offsets = rewards.double() - rewards[:, :1].double()
    return scale(offsets - offsets.mean(dim=1, keepdim=True)).to(rewards.dtype)


def _deviation(centred: Tensor) -> Tensor:
    return (centred.square().sum(dim=1, keepdim=True) / max(centred.shape[1] - 1, 1)).sqrt()

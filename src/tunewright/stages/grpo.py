"""Group relative policy optimisation: several answers to each prompt, compared with each other (Shao et al. 2024, arXiv 2402.03300), with
the variants of DAPO (Yu et al. 2025), Dr. GRPO (Liu et al. 2025) and GSPO (Zheng et al. 2025).

One step of the engine is one rollout and `num_iterations` updates on it. Axes: A answer tokens of a batch, P prompts, G answers to each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self

import torch

from tunewright.data.experience import Experience
from tunewright.losses.policy import (
    TokenWeights,
    clipped_surrogate,
    is_clipped,
    per_length_limit,
    per_sequence_mean,
    per_token_mean,
    sequence_log_ratios,
)
from tunewright.rl.advantages import STD_FLOOR, centred_advantages, group_advantages, moments_of
from tunewright.rl.kl import k1, k2, k3
from tunewright.stages.online import (
    Played,
    Rollouts,
    demand_rollouts,
    evaluation_loss,
    has_reward_model,
    number_format,
    over_ranks,
    quiet_token_logps,
)
from tunewright.stages.sequence_logps import answer_states, sequences_of
from tunewright.stages.stage import ExampleKind, Loss, Models, Role, StepContext

if TYPE_CHECKING:
    from torch import Tensor

    from tunewright.config.alignment import AlignmentConfig
    from tunewright.config.run import RunConfig
    from tunewright.data.collate import Batch
    from tunewright.data.sequences import Sequences

_ESTIMATORS: Final = {"k1": k1, "k2": k2, "k3": k3}


@dataclass(frozen=True, slots=True)
class GroupRelativePolicyOptimization:
    """`stage: grpo`. The unit is that of `grpo_loss_type`; of a batch of prompts, the prompt. `longest`: tokens that an answer may have."""

    settings: AlignmentConfig
    longest: int
    rollouts: Rollouts | None = None
    name: str = "grpo"
    examples: ExampleKind = ExampleKind.PROMPT
    rows_interact: bool = False

    @classmethod
    def of(cls, run: RunConfig) -> Self:
        """The stage as the run wants it; `rollouts` are given to it when models and rows are there."""
        return cls(run.alignment, run.generation.max_new_tokens)

    @property
    def roles(self) -> frozenset[Role]:
        """The policy, the reference if the divergence from it costs something, the reward model if there is one in this process."""
        wanted = {Role.REFERENCE: self.settings.grpo_beta > 0, Role.REWARD: has_reward_model(self.settings)}
        return frozenset({Role.POLICY, *(role for role, is_wanted in wanted.items() if is_wanted)})

    @property
    def measures(self) -> tuple[str, ...]:
        """Means over answers, over groups (`reward_std`, `zero_std_groups`: the share whose rewards are all equal), and over tokens."""
        return (*self._rollouts.measures, "reward_std", "zero_std_groups", *(["kl"] if self.settings.grpo_beta else []), "entropy",
                "clip_fraction")

    def units(self, batch: Batch) -> int:
        """What the loss is a mean over; prompts, as long as they have no answers."""
        if batch.sequences is None:
            return len(batch.sample_ids)
        return self._weights(batch.sequences).units

    def updates(self, models: Models, batches: Sequence[Batch], context: StepContext) -> Iterator[Sequence[Batch]]:
        """Answer the prompts, then yield all answers `num_iterations` times."""
        rollouts = self._rollouts
        played = rollouts.play(models, batches, context)
        if not context.training:
            yield rollouts.measured(played)
            return
        advantages = self._advantages(played, context)
        ready = [self._with_experience(models, one, found) for one, found in zip(played, advantages, strict=True)]
        for _ in range(self.settings.num_iterations):
            yield ready

    def loss(self, models: Models, batch: Batch) -> Loss:
        """Sum over tokens of the weighted clipped surrogate and divergence; in evaluation minus the reward of the answers."""
        known, settings = batch.experience, self.settings
        assert known is not None, "the experience of a step comes with its batches"
        if known.advantages is None:
            return evaluation_loss(known)
        aims, now = sequences_of(batch), answer_states(models[Role.POLICY], batch)
        log_ratios = now.logps - (now.logps.detach() if known.old_logps is None else known.old_logps)
        if settings.importance_sampling_level == "sequence":
            log_ratios = sequence_log_ratios(log_ratios, aims.owners, aims.count)
        low, high = settings.epsilon, settings.epsilon if settings.epsilon_high is None else settings.epsilon_high
        advantages = known.advantages.to(log_ratios.dtype)
        losses = clipped_surrogate(log_ratios, advantages, low, high)
        found = {"clip_fraction": float(is_clipped(log_ratios, advantages, low, high).sum()), "entropy": float(now.entropy().sum())}
        if known.reference_logps is not None:
            divergence = _ESTIMATORS[settings.kl_estimator](now.logps, known.reference_logps)
            losses = losses + settings.grpo_beta * divergence
            found["kl"] = float(divergence.detach().sum())
        weights, tokens = self._weights(aims), float(aims.targets.numel())
        metrics = {**known.figures, **{name: (total, tokens) for name, total in found.items()}}
        return Loss((losses * weights.weights.to(losses.dtype)).sum(), weights.units, metrics)

    @property
    def _rollouts(self) -> Rollouts:
        return demand_rollouts(self.rollouts, self.name)

    def _advantages(self, played: Sequence[Played], context: StepContext) -> list[Tensor]:
        """[P, G] of each batch."""
        rewards = [one.rewards().view(len(one.groups), -1 if one.groups else 0) for one in played]
        if self.settings.scale_rewards == "group":
            return [group_advantages(one) for one in rewards]
        found = [centred_advantages(one) for one in rewards]
        if self.settings.scale_rewards == "none":
            return found
        moments = over_ranks(moments_of(torch.cat([one.flatten() for one in rewards])), context)
        return [one / (math.sqrt(moments.variance) + STD_FLOOR) for one in found]

    def _with_experience(self, models: Models, played: Played, advantages: Tensor) -> Batch:
        """The answers as a batch, with their advantages and what policy and reference say of them before the first update.

        A single update is made by the policy itself, whose ratio to itself is 1: it needs no pass of its own for that.
        """
        batch = self._rollouts.laid_out(played)
        aims = sequences_of(batch)
        old = quiet_token_logps(models[Role.POLICY], batch) if self.settings.num_iterations > 1 else None
        reference = quiet_token_logps(models[Role.REFERENCE], batch) if self.settings.grpo_beta else None
        known = played.evaluated({**self._rollouts.figures(played), **_spread(played)})
        of_tokens = advantages.flatten()[aims.owners.cpu()].to(number_format(models[Role.POLICY])).to(aims.owners.device)
        return replace(batch, experience=Experience(known.rewards, known.figures, of_tokens, old_logps=old, reference_logps=reference))

    def _weights(self, aims: Sequences) -> TokenWeights:
        match self.settings.grpo_loss_type:
            case "grpo":
                return per_sequence_mean(aims.owners, aims.count)
            case "dr_grpo":
                return per_length_limit(aims.owners, aims.count, self.longest)
            case "dapo":
                return per_token_mean(aims.owners, aims.count)
            case "bnpo":
                whole = per_token_mean(aims.owners, aims.count)
                return TokenWeights(whole.weights / max(whole.units, 1), min(whole.units, 1))
            case other:
                raise ValueError(f"grpo_loss_type {other}")


def _spread(played: Played) -> dict[str, tuple[float, float]]:
    """Of the rewards within each group: standard deviation (n - 1), and whether they are all equal."""
    groups = [torch.tensor([episode.reward for episode in group], dtype=torch.float64) for group in played.groups]
    equal = sum(bool((group == group[0]).all()) for group in groups)
    return {"reward_std": (float(sum(group.std() for group in groups)), float(len(groups))),
            "zero_std_groups": (float(equal), float(len(groups)))}


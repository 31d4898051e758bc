"""Proximal policy optimisation against a reward model: PPO (Schulman et al. 2017, arXiv 1707.06347) with a penalty for the divergence
from a reference on each token (Ziegler et al. 2019, arXiv 1909.08593; Ouyang et al. 2022, arXiv 2203.02155).

One step of the engine is one rollout and all updates on it: `ppo_epochs` passes over `ppo_buffer_size` mini-batches. The value of a token
is the value head's number where the token is predicted. Axes: A answer tokens of a batch, N answers, T tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch

from tunewright.data.experience import Experience
from tunewright.kernels.probe import quiet_run
from tunewright.losses.logps import rows_by_owner
from tunewright.losses.policy import clipped_surrogate, clipped_value_loss, is_clipped
from tunewright.models.heads import value_head_of
from tunewright.rl.advantages import (
    Moments,
    generalized_advantages,
    moments_of,
    normalized_scores,
    token_rewards,
    whiten,
    whiten_around_mean,
)
from tunewright.rl.kl import AdaptiveKL, FixedKL, k1
from tunewright.stages.online import (
    Played,
    Rollouts,
    demand_rollouts,
    evaluation_loss,
    has_reward_model,
    over_ranks,
    quiet_token_logps,
)
from tunewright.stages.sequence_logps import AnswerStates, answer_states, bare, sequences_of
from tunewright.stages.stage import ExampleKind, Loss, Models, Role, StepContext

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tunewright.config.alignment import AlignmentConfig
    from tunewright.config.run import RunConfig
    from tunewright.data.collate import Batch


@dataclass(slots=True)
class Memory:
    """What outlives a step: the coefficient of the penalty, and the moments of all scores so far."""

    penalty: FixedKL | AdaptiveKL
    scores: Moments = field(default_factory=Moments)

    @classmethod
    def of(cls, settings: AlignmentConfig) -> Memory:
        """At the start."""
        if settings.ppo_adap_kl_ctrl:
            return cls(AdaptiveKL(settings.ppo_init_kl_coef, settings.ppo_target, settings.ppo_horizon))
        return cls(FixedKL(settings.ppo_init_kl_coef))


@dataclass(frozen=True, slots=True)
class ProximalPolicyOptimization:
    """`stage: ppo`. The unit is the answer token; of a batch of prompts, the prompt. `per_update`: micro-batches of an update."""

    settings: AlignmentConfig
    per_update: int
    memory: Memory
    rollouts: Rollouts | None = None
    name: str = "ppo"
    examples: ExampleKind = ExampleKind.PROMPT
    rows_interact: bool = False

    @classmethod
    def of(cls, run: RunConfig) -> Self:
        """The stage as the run wants it; `rollouts` are given to it when models and rows are there."""
        return cls(run.alignment, run.batching.gradient_accumulation_steps, Memory.of(run.alignment))

    @property
    def roles(self) -> frozenset[Role]:
        """The policy, whose value head it must have, the reference, and the reward model if there is one in this process."""
        return frozenset({Role.POLICY, Role.REFERENCE} | ({Role.REWARD} if has_reward_model(self.settings) else set()))

    @property
    def measures(self) -> tuple[str, ...]:
        """Means over answers, and over tokens of the losses."""
        return (*self._rollouts.measures, "kl", "kl_coef", "entropy", "policy_loss", "value_loss", "clip_fraction")

    def state(self) -> dict[str, Any]:
        """Coefficient of the penalty, and moments of the scores."""
        return {"kl_coef": self.memory.penalty.coefficient, "scores": asdict(self.memory.scores)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.memory.penalty = replace(self.memory.penalty, coefficient=state["kl_coef"])
        self.memory.scores = Moments(**state["scores"])

    def units(self, batch: Batch) -> int:
        """Answer tokens, or prompts that have no answer yet."""
        return len(batch.sample_ids) if batch.sequences is None else int(batch.sequences.targets.numel())

    def updates(self, models: Models, batches: Sequence[Batch], context: StepContext) -> Iterator[Sequence[Batch]]:
        """Answer the prompts, then yield the answers mini-batch by mini-batch, `ppo_epochs` times."""
        rollouts = self._rollouts
        played = rollouts.play(models, batches, context)
        if not context.training:
            yield rollouts.measured(played)
            return
        ready = self._with_experience([self._remembered(models, one) for one in played], context)
        updates = self._with_answers([ready[start:start + self.per_update] for start in range(0, len(ready), self.per_update)], context)
        for _ in range(self.settings.ppo_epochs):
            yield from updates

    def loss(self, models: Models, batch: Batch) -> Loss:
        """Sum over tokens of the clipped surrogate and the weighted clipped value loss; in evaluation minus the reward of the answers."""
        known, settings = batch.experience, self.settings
        assert known is not None, "the experience of a step comes with its batches"
        if known.advantages is None:
            return evaluation_loss(known)
        assert known.old_logps is not None and known.old_values is not None and known.returns is not None
        now = answer_states(models[Role.POLICY], batch)
        values, log_ratios = values_of(models[Role.POLICY], now), now.logps - known.old_logps
        policy = clipped_surrogate(log_ratios, known.advantages, settings.ppo_cliprange, settings.ppo_cliprange)
        value = clipped_value_loss(values, known.old_values, known.returns, settings.ppo_cliprange_value)
        clipped = is_clipped(log_ratios, known.advantages, settings.ppo_cliprange, settings.ppo_cliprange)
        tokens = self.units(batch)
        sums = torch.stack([policy.detach().sum(), value.detach().sum(), clipped.sum().to(policy.dtype)]).tolist()
        found = {name: (total, float(tokens)) for name, total in zip(("policy_loss", "value_loss", "clip_fraction"), sums, strict=True)}
        return Loss(policy.sum() + settings.ppo_vf_coef * value.sum(), tokens, {**known.figures, **found})

    @property
    def _rollouts(self) -> Rollouts:
        return demand_rollouts(self.rollouts, self.name)

    def _with_answers(self, updates: Sequence[Sequence[Batch]], context: StepContext) -> list[Sequence[Batch]]:
        """Those for which some rank has an answer: of a stream, all rows of a mini-batch may have been dropped."""
        answers = context.ranks.all_reduce_sum([float(sum(self.units(batch) for batch in one)) for one in updates])
        return [one for one, number in zip(updates, answers, strict=True) if number]

    def _remembered(self, models: Models, played: Played) -> Remembered:
        """The answers as a batch, with what policy and reference say of them before the first update."""
        batch, policy = self._rollouts.laid_out(played), bare(models[Role.POLICY])
        with quiet_run(policy):
            states = answer_states(policy, batch)
            values, entropy = values_of(policy, states), float(states.entropy().sum())
        reference = quiet_token_logps(models[Role.REFERENCE], batch)
        figures = {**self._rollouts.figures(played), "entropy": (entropy, float(self.units(batch)))}
        return Remembered(batch, states.logps, values, k1(states.logps, reference), played.rewards(), figures)

    def _with_experience(self, answered: Sequence[Remembered], context: StepContext) -> list[Batch]:
        """The batches with advantages and returns, whose moments are those of the whole step over all ranks; the memory moves on."""
        scores = self._scores([one.scores for one in answered], context)
        rows = [one.rows(score, self.memory.penalty.coefficient) for one, score in zip(answered, scores, strict=True)]
        if self.settings.ppo_whiten_rewards:
            moments = over_ranks(moments_of(torch.cat([one.rewards[one.mask] for one in rows])), context)
            rows = [one._replace(rewards=whiten_around_mean(one.rewards, one.mask, moments)) for one in rows]
        settings = self.settings
        estimates = [generalized_advantages(one.rewards, one.values, one.mask, settings.ppo_gamma, settings.ppo_lam) for one in rows]
        moments = over_ranks(moments_of(torch.cat([found[one.mask] for one, (found, _) in zip(rows, estimates, strict=True)])), context)
        coefficient = self.memory.penalty.coefficient
        self._adapt(answered, context)
        ready = []
        for one, row, (found, returns) in zip(answered, rows, estimates, strict=True):
            answers = float(len(one.scores))
            figures = {**one.figures, "kl": (float(one.kl.double().sum()), answers), "kl_coef": (coefficient * answers, answers)}
            ready.append(replace(one.batch, experience=Experience(
                one.figures["reward"], figures, whiten(found, row.mask, moments)[row.mask], old_logps=one.logps, old_values=one.values,
                returns=returns[row.mask])))
        return ready

    def _scores(self, scores: Sequence[Tensor], context: StepContext) -> Sequence[Tensor]:
        """[N] each; with `ppo_score_norm` by the moments of all scores of the run, these included."""
        if not self.settings.ppo_score_norm:
            return scores
        self.memory.scores = self.memory.scores.merged(over_ranks(moments_of(torch.cat(list(scores))), context))
        return [normalized_scores(some, self.memory.scores) for some in scores]

    def _adapt(self, answered: Sequence[Remembered], context: StepContext) -> None:
        """Move the coefficient of the penalty on by the mean divergence of the step's answers."""
        divergence = sum(float(one.kl.double().sum()) for one in answered)
        total, answers = context.ranks.all_reduce_sum([divergence, float(sum(len(one.scores) for one in answered))])
        self.memory.penalty = self.memory.penalty.updated(total / answers, int(answers))


class Rows(NamedTuple):
    """Rewards and values of tokens, and which places are tokens: [N, T] each."""

    rewards: Tensor
    values: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True)
class Remembered:
    """Answers before the first update on them: log-probabilities, values and divergence from the reference [A]; scores [N] on the CPU."""

    batch: Batch
    logps: Tensor
    values: Tensor
    kl: Tensor
    scores: Tensor
    figures: Mapping[str, tuple[float, float]]

    def rows(self, scores: Tensor, coefficient: float) -> Rows:
        """Token rewards with the penalty, and values, answer by answer."""
        aims = sequences_of(self.batch)
        divergence, mask = rows_by_owner(self.kl, aims.owners, aims.count)
        values, _ = rows_by_owner(self.values, aims.owners, aims.count)
        scores = scores.to(divergence.dtype).to(divergence.device)
        return Rows(token_rewards(scores, divergence, mask, coefficient), values.to(divergence.dtype), mask)


def values_of(policy: nn.Module, states: AnswerStates) -> Tensor:
    """The value of each answer token [A], float32 or wider: of what stands before it."""
    head = value_head_of(policy)
    assert head is not None, "the policy of ppo has a value head"
    values: Tensor = head(states.hidden)
    return values.to(torch.promote_types(values.dtype, torch.float32))

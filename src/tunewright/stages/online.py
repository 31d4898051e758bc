"""What ppo and grpo have in common: answers of the policy, laid out for training, with what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

import torch

from tunewright.data.collate_groups import CollateGroups, Group, without_answers
from tunewright.data.experience import Experience
from tunewright.errors import InputError
from tunewright.kernels.probe import quiet_run
from tunewright.rl.advantages import Moments
from tunewright.rl.episodes import EVALUATION, Episode, Player
from tunewright.stages.sequence_logps import bare, token_logps
from tunewright.stages.stage import Loss, Models, Role, StepContext

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tunewright.config.alignment import AlignmentConfig
    from tunewright.data.collate import Batch

Told = Callable[[StepContext, Sequence[Episode]], None]
"""Takes the answers of a step of training on this rank; every rank calls it in each step."""

MEASURES: Final = ("reward", "completion_length", "missing_eos")
"""Means over answers: the reward, tokens of an answer with the one that ends it, the share without such a one."""


@dataclass(frozen=True, slots=True)
class Rollouts:
    """What a stage needs to make its own training rows: who answers and judges, how answers become a batch, who is told of them."""

    player: Player
    collate: CollateGroups
    told: Told

    @property
    def measures(self) -> tuple[str, ...]:
        """Metrics of rewards and answers; of several scorers one each besides."""
        names = self.player.judge.names
        return (*MEASURES, *(f"rewards/{name}" for name in names if len(names) > 1))

    def play(self, models: Models, batches: Sequence[Batch], context: StepContext) -> list[Played]:
        """The batches of prompts, answered; those of training are told of."""
        step = context.step if context.training else EVALUATION
        found = self.player.play(bare(models[Role.POLICY]), batches, context.seed, step)
        if context.training:
            self.told(context, [episode for groups in found for group in groups for episode in group])
        return [Played(batch, groups) for batch, groups in zip(batches, found, strict=True)]

    def laid_out(self, played: Played) -> Batch:
        """The answers as a batch for training, on the device of their prompts."""
        if not played.groups:
            return without_answers(played.prompts, self.collate)
        groups = [Group(group[0].sample_id, group[0].prompt, [episode.answer for episode in group]) for group in played.groups]
        return self.collate(groups).to(played.prompts.input_ids.device)

    def measured(self, played: Sequence[Played]) -> list[Batch]:
        """The batches of an evaluation: the prompts, with what their answers were worth."""
        return [replace(one.prompts, experience=one.evaluated(self.figures(one))) for one in played]

    def figures(self, played: Played) -> dict[str, tuple[float, float]]:
        """(sum, count) of `measures`."""
        episodes = played.episodes
        sums = [sum(one.reward for one in episodes), sum(len(one.answer) for one in episodes), sum(not one.ended for one in episodes)]
        if len(self.measures) > len(MEASURES):
            sums += [sum(one.scores[number] for one in episodes) for number in range(len(self.player.judge.names))]
        return {name: (float(total), float(len(episodes))) for name, total in zip(self.measures, sums, strict=True)}


def demand_rollouts(rollouts: Rollouts | None, stage: str) -> Rollouts:
    """The rollouts of a stage. Raises InputError where nobody has given them to it."""
    if rollouts is None:
        raise InputError(f"stage {stage} needs prompts, a template and something that scores answers",
                         mend="start it with `tunewright train`")
    return rollouts


def has_reward_model(settings: AlignmentConfig) -> bool:
    """Whether a reward model is opened in this process; a service is not."""
    return settings.reward_model is not None and settings.reward_model_type != "api"


@dataclass(frozen=True, slots=True)
class Played:
    """A batch of prompts, and for each of them its answers."""

    prompts: Batch
    groups: list[list[Episode]]

    @property
    def episodes(self) -> list[Episode]:
        """All answers, in the order of the sequences that they become."""
        return [episode for group in self.groups for episode in group]

    def rewards(self) -> Tensor:
        """[N] float64 on the CPU."""
        return torch.tensor([one.reward for one in self.episodes], dtype=torch.float64)

    def evaluated(self, figures: Mapping[str, tuple[float, float]]) -> Experience:
        """What an evaluation reads."""
        return Experience((sum(one.reward for one in self.episodes), float(len(self.episodes))), figures)


def evaluation_loss(experience: Experience) -> Loss:
    """Minus the mean reward, so that the evaluation with the lowest loss is the best one; and the metrics."""
    total, count = experience.rewards
    return Loss(torch.tensor(-total, dtype=torch.float64), int(count), experience.figures)


def number_format(model: nn.Module) -> torch.dtype:
    """That of the model's log-probabilities: float32, or the model's own where it is wider."""
    return torch.promote_types(next(model.parameters()).dtype, torch.float32)


def quiet_token_logps(model: nn.Module, batch: Batch) -> Tensor:
    """`token_logps` [A] in evaluation mode, without a gradient; no random number of the run is used up."""
    with quiet_run(bare(model)):
        return token_logps(bare(model), batch)


def over_ranks(moments: Moments, context: StepContext) -> Moments:
    """The moments of all ranks together, the same bits on each."""
    total = Moments()
    for part in context.ranks.gather_objects(asdict(moments)):
        total = total.merged(Moments(**part))
    return total

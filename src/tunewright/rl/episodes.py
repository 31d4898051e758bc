"""Prompts to scored answers: what ppo and grpo learn from, and are evaluated by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tunewright.data.collate_groups import prompts_of
from tunewright.rl.rewards import Answers
from tunewright.rl.rollout import Request, Sampling, roll_out

if TYPE_CHECKING:
    from torch import nn

    from tunewright.data.collate import Batch
    from tunewright.rl.rewards import Scorer

EVALUATION: Final = -1
"""In the place of the step in the key of an answer: evaluations draw the same ones whenever they are."""

Columns = Callable[[Sequence[int]], Mapping[str, Sequence[Any]]]
"""Numbers of samples -> the other columns of their rows."""

Decode = Callable[[Sequence[int], bool], str]
"""Token ids to text, with or without control tokens."""


class Episode(NamedTuple):
    """An answer and what it was worth. `scores`: one for each scorer; `reward`: their weighted sum, less the penalty for having no end.
    `answer` has the token that ended it."""

    sample_id: int
    number: int
    prompt: list[int]
    answer: list[int]
    ended: bool
    texts: tuple[str, str]
    scores: tuple[float, ...]
    reward: float


@dataclass(frozen=True, slots=True)
class Judge:
    """What gives the rewards: scorers with a weight each, and what is taken off an answer without an end."""

    scorers: tuple[Scorer, ...]
    weights: tuple[float, ...]
    missing_eos_penalty: float = 0.0

    def rewards(self, answers: Answers, ended: Sequence[bool]) -> list[tuple[tuple[float, ...], float]]:
        """The scores and the reward of each answer."""
        columns = [scorer(answers) for scorer in self.scorers]
        found = []
        for scores, has_end in zip(zip(*columns, strict=True), ended, strict=True):
            total = sum(weight * score for weight, score in zip(self.weights, scores, strict=True))
            found.append((scores, total - (0.0 if has_end else self.missing_eos_penalty)))
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """What the scorers are called in metrics: functions without their file, unless two would be the same."""
        short = tuple(scorer.name.rpartition(":")[2] if ".py:" in scorer.name else scorer.name for scorer in self.scorers)
        return short if len(set(short)) == len(short) else tuple(scorer.name for scorer in self.scorers)


@dataclass(frozen=True, slots=True)
class Player:
    """Answers prompts and has the answers judged; `generations` to each prompt, one in evaluations."""

    sampling: Sampling
    judge: Judge
    decode: Decode
    columns: Columns
    generations: int = 1

    def play(self, policy: nn.Module, batches: Sequence[Batch], seed: int, step: int) -> list[list[list[Episode]]]:
        """For each batch of prompts, for each of its prompts, the answers with their rewards, of this rank.

        They are a function of the policy, `seed`, `step`, and of prompt, number of its sample and number of the generation.
        """
        prompts = [list(zip(batch.sample_ids, prompts_of(batch), strict=True)) for batch in batches]
        numbers = range(1 if step == EVALUATION else self.generations)
        wanted = [(sample, prompt, number) for some in prompts for sample, prompt in some for number in numbers]
        episodes = iter(self._played(policy, wanted, (seed, step)))
        return [[[next(episodes) for _ in numbers] for _ in some] for some in prompts]

    def _played(self, policy: nn.Module, wanted: Sequence[tuple[int, list[int], int]], key: tuple[int, int]) -> list[Episode]:
        if not wanted:
            return []
        requests = [Request(prompt, (*key, sample, number)) for sample, prompt, number in wanted]
        answered = roll_out(policy, requests, self.sampling)
        texts = [(self.decode(prompt, False), self.decode(one.ids, True)) for (_, prompt, _), one in zip(wanted, answered, strict=True)]
        answers = Answers(
            [prompt for _, prompt, _ in wanted], [one.ids for one in answered], [text for text, _ in texts], [text for _, text in texts],
            self.columns([sample for sample, _, _ in wanted]),
            [self.decode([*prompt, *one.ids], False) for (_, prompt, _), one in zip(wanted, answered, strict=True)])
        judged = self.judge.rewards(answers, [one.ended for one in answered])
        return [Episode(sample, number, prompt, one.ids, one.ended, text, scores, reward)
                for (sample, prompt, number), one, text, (scores, reward) in zip(wanted, answered, texts, judged, strict=True)]

"""What gives an answer its reward: a reward model, a service over HTTP, or a function of the user's.

Every scorer is called with the answers of this rank and returns a finite number for each; errors name the scorer and the answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from tunewright.errors import NumericError, refuse
from tunewright.kernels.output_head import last_hidden_states
from tunewright.kernels.probe import quiet_run
from tunewright.models.heads import value_head_of

if TYPE_CHECKING:
    from torch import nn

    from tunewright.config.alignment import AlignmentConfig

API = "api"


@dataclass(frozen=True, slots=True)
class Answers:
    """N answers to be scored. `prompt_ids`, `answer_ids`: tokens, an answer with the one that ends it; `prompts`, `completions`: their
    texts, an answer's without control tokens; `columns`: the other columns of the rows that the prompts come from, N values each;
    `wholes`: prompt and answer as one text with all tokens, absent for `prompts` and `completions` joined."""

    prompt_ids: Sequence[Sequence[int]]
    answer_ids: Sequence[Sequence[int]]
    prompts: Sequence[str]
    completions: Sequence[str]
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    wholes: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.answer_ids)


class Scorer(Protocol):
    """Something that scores answers."""

    @property
    def name(self) -> str:
        """What it is called in logs and errors."""
        ...

    def __call__(self, answers: Answers) -> list[float]:
        """A finite reward for each answer."""
        ...


@dataclass(frozen=True, slots=True)
class ModelScorer:
    """A reward model: the value at the last token of prompt and answer. It has a value head (`models.heads`), and the policy's tokens.

    A score does not depend on the other answers, nor on `batch_size`, which is how many are computed at a time.
    """

    model: nn.Module
    pad_token_id: int
    batch_size: int
    name: str = "reward_model"

    def __call__(self, answers: Answers) -> list[float]:
        """The rewards, computed in order of length so that little is padded."""
        rows = [[*prompt, *answer] for prompt, answer in zip(answers.prompt_ids, answers.answer_ids, strict=True)]
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        found: dict[int, float] = {}
        with quiet_run(self.model):
            for start in range(0, len(rows), self.batch_size):
                some = order[start:start + self.batch_size]
                found |= zip(some, self._batch([rows[number] for number in some]), strict=True)
        return checked([found[number] for number in range(len(rows))], len(answers), self.name)

    def _batch(self, rows: Sequence[Sequence[int]]) -> list[float]:
        head = value_head_of(self.model)
        assert head is not None, "a reward model has a value head"
        device = next(self.model.parameters()).device
        lengths = torch.tensor([len(row) for row in rows], device=device)
        ids = torch.full((len(rows), int(lengths.max())), self.pad_token_id, device=device)
        for number, row in enumerate(rows):
            ids[number, :len(row)] = torch.tensor(row, device=device)
        places = torch.arange(ids.shape[1], device=device)
        inputs = {"input_ids": ids, "attention_mask": (places < lengths.unsqueeze(1)).long(), "position_ids": places.repeat(len(rows), 1)}
        kept, columns = torch.unique(lengths - 1, return_inverse=True)
        hidden = last_hidden_states(self.model, inputs, kept)
        values: list[float] = head(hidden[torch.arange(len(rows), device=device), columns]).tolist()
        return values


def open_scorers(alignment: AlignmentConfig, reward_model: nn.Module | None, pad_token_id: int, batch_size: int) -> tuple[Scorer, ...]:
    """Everything that scores the answers of a run: its reward model or service, then its functions.

    Raises `InputError` for an address that cannot be one, and for a function that is not there.
    """
    from tunewright.rl.reward_functions import open_function
    from tunewright.rl.reward_service import RewardService

    found: list[Scorer] = []
    if alignment.reward_model and alignment.reward_model_type == API:
        found.append(RewardService.at(alignment.reward_model))
    elif reward_model is not None:
        found.append(ModelScorer(reward_model, pad_token_id, batch_size))
    return (*found, *(open_function(name) for name in alignment.reward_funcs))


def checked(rewards: Iterable[Any], count: int, name: str) -> list[float]:
    """The rewards as floats. Raises InputError unless there are `count` numbers, NumericError for one that is not finite."""
    found = []
    for number, reward in enumerate(rewards, start=1):
        if number > count:
            refuse(f"{name} gave more rewards than the {count} answers it was asked about", mend="return one for each")
        try:
            value = float(reward)
        except OverflowError:  # an integer beyond all floats
            value = math.inf if reward > 0 else -math.inf
        except (TypeError, ValueError, RuntimeError):
            refuse(f"{name}: the reward of answer {number} of {count} is {str(reward)[:60]!r}, not a number",
                   mend="return a number for each")
        if not math.isfinite(value):
            raise NumericError(f"{name}: the reward of answer {number} of {count} is {value}", mend="return finite numbers")
        found.append(value)
    if len(found) < count:
        refuse(f"{name} gave {len(found)} rewards for {count} answers", mend="return one for each")
    return found

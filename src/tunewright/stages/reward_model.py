"""Reward modelling: the better of two answers shall have the higher reward.

The reward of an answer is the value head's number at its last token, the terminator (Ouyang et al. 2022, arXiv 2203.02155, section 3.5;
LLaMA-Factory and trl take the same one). Axes: N sequences, two of each pair, B rows, S positions of a row, K positions that are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import torch

from tunewright.kernels.output_head import last_hidden_states
from tunewright.losses.logps import count_by_owner
from tunewright.losses.reward import bradley_terry_loss
from tunewright.models.heads import value_head_of
from tunewright.stages.causal_lm import model_inputs
from tunewright.stages.sequence_logps import sequences_of
from tunewright.stages.stage import ExampleKind, Loss, Models, Role, StepContext

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tunewright.config.run import RunConfig
    from tunewright.data.collate import Batch

MEASURES: Final = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins")


@dataclass(frozen=True, slots=True)
class RewardModeling:
    """`stage: rm`. The policy is the reward model; it must have a value head."""

    name: str = "rm"
    roles: frozenset[Role] = frozenset({Role.POLICY})
    examples: ExampleKind = ExampleKind.PREFERENCE
    measures: tuple[str, ...] = MEASURES
    rows_interact: bool = False

    @classmethod
    def of(cls, run: RunConfig) -> Self:
        """The stage as the run wants it, which has nothing to say about it."""
        return cls()

    def units(self, batch: Batch) -> int:
        """Pairs."""
        return sequences_of(batch).count // 2

    def updates(self, models: Models, batches: Sequence[Batch], context: StepContext) -> Iterator[Sequence[Batch]]:
        """One update, of the batches as they are."""
        yield batches

    def loss(self, models: Models, batch: Batch) -> Loss:
        """Sum over pairs of -log sigmoid(reward of chosen - reward of rejected)."""
        rewards = sequence_rewards(models[Role.POLICY], batch)
        chosen, rejected = rewards[0::2], rewards[1::2]
        return Loss(bradley_terry_loss(chosen, rejected).sum(), len(chosen), _metrics(chosen.detach(), rejected.detach()))


def sequence_rewards(policy: nn.Module, batch: Batch) -> Tensor:
    """The value at the last token of each sequence: [N], float32 or wider, differentiable.

    A reward depends on its own sequence only, not on the layout of the batch.
    """
    head = value_head_of(policy)
    assert head is not None, "a reward model has a value head"
    places, length = last_tokens(batch), batch.input_ids.shape[1]
    kept, columns = torch.unique(places % length, return_inverse=True)
    hidden = last_hidden_states(policy, model_inputs(batch), kept if kept.numel() else kept.new_zeros(1))
    values: Tensor = head(hidden[places // length, columns])
    return values.to(torch.promote_types(values.dtype, torch.float32))


def last_tokens(batch: Batch) -> Tensor:
    """Where the last token of each sequence stands in the flattened [B * S]: [N] int64.

    It comes after the place that predicts it, unless that one is the last token of a prompt that stands in an earlier segment: then it
    is the first one, and the only one, of its own.
    """
    sequences = sequences_of(batch)
    last = count_by_owner(sequences.owners, sequences.count).cumsum(0) - 1
    after = sequences.positions[last] + 1
    if batch.bounds is None:
        return after
    return torch.maximum(after, batch.bounds[:sequences.count].to(after))


def _metrics(chosen: Tensor, rejected: Tensor) -> dict[str, tuple[float, float]]:
    """Means over pairs; a tie is not won."""
    pairs, wins = float(len(chosen)), float((chosen > rejected).sum())
    sums = (float(chosen.sum()), float(rejected.sum()), wins, float((chosen - rejected).sum()))
    return {name: (total, pairs) for name, total in zip(MEASURES, sums, strict=True)}

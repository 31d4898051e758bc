"""Which answer tokens of a batch are predicted, from where, and to which answer they belong: the same in every layout.

Axes: A answer tokens of the batch, B rows, S positions of one row (a batch laid end to end is one row).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from tunewright.data.records import IGNORE_INDEX

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Sequences:
    """The answers of a batch, token by token.

    positions [A] int64: place in the flattened [B * S] of input_ids whose hidden state predicts the token. targets [A] int64: the token.
    owners [A] int64, ascending: the sequence that the token belongs to, 0 <= owner < count. Of pairs, sequence 2i is the chosen answer
    of pair i and 2i + 1 the rejected one; of feedback, R rows are sequences 0 to R - 1, and their mismatched ones R to 2R - 1.
    Every sequence has at least one token, in the order in which it is written.
    """

    positions: torch.Tensor
    targets: torch.Tensor
    owners: torch.Tensor
    count: int

    @classmethod
    def none(cls) -> Sequences:
        """No sequence at all."""
        nothing = torch.zeros(0, dtype=torch.int64)
        return cls(nothing, nothing, nothing, 0)

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Sequences:
        """Those of the answers, in their order."""
        if not answers:
            return cls.none()
        owners = np.repeat(np.arange(len(answers)), [len(answer.targets) for answer in answers])
        return cls(torch.from_numpy(np.concatenate([answer.positions for answer in answers]).astype(np.int64)),
                   torch.from_numpy(np.concatenate([answer.targets for answer in answers]).astype(np.int64)),
                   torch.from_numpy(owners.astype(np.int64)), len(answers))

    def pin_memory(self) -> Sequences:
        """The same in page-locked memory."""
        return Sequences(self.positions.pin_memory(), self.targets.pin_memory(), self.owners.pin_memory(), self.count)

    def to(self, device: torch.device) -> Sequences:
        """The same on `device`."""
        return Sequences(self.positions.to(device, non_blocking=True), self.targets.to(device, non_blocking=True),
                         self.owners.to(device, non_blocking=True), self.count)


class Answer(NamedTuple):
    """Tokens of one answer that are predicted [a], and the places that predict them [a]."""

    positions: NDArray[np.int64]
    targets: NDArray[np.int32]


def answer_at(labels: NDArray[np.int32], begin: int) -> Answer:
    """The answer of a row of `labels` [length] that stands at `begin` in the flattened batch: a token is predicted one place before it."""
    places = np.flatnonzero(labels != IGNORE_INDEX)
    return Answer(begin + places - 1, labels[places])


def answer_after_prefix(labels: NDArray[np.int32], prefix: int, prefix_begin: int, begin: int) -> Answer:
    """The answer of a row whose first `prefix` tokens stand at `prefix_begin` as part of another row, and the others at `begin`.

    What the first of these others is predicted from is the last token of the prefix.
    """
    places = np.flatnonzero(labels != IGNORE_INDEX)
    before = places - 1
    return Answer(np.where(before < prefix, prefix_begin + before, begin + before - prefix), labels[places])

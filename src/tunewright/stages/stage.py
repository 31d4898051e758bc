"""What a stage is: which models and examples it needs, and its loss. The engine knows stages through this page only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tunewright.data.collate import Batch


class Role(Enum):
    """What a model is to a stage."""

    POLICY = "policy"
    REFERENCE = "reference"
    REWARD = "reward"
    VALUE = "value"


class ExampleKind(Enum):
    """What one training example is made from."""

    TEXT = "text"
    CONVERSATION = "conversation"


Models = Mapping[Role, "nn.Module"]


@dataclass(frozen=True, slots=True)
class Loss:
    """The *sum* of a loss over supervised units, and how many units it is over.

    The engine divides by the count of the whole optimizer step over all ranks, so any split of a batch gives the same
    gradient. `metrics` holds further (sum, count) pairs, averaged in the same way.
    """

    sum: Tensor
    count: int
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)


class Stage(Protocol):
    """An algorithm. Stages do not know each other and inherit nothing."""

    @property
    def name(self) -> str:
        """The value of `stage` that asks for it."""
        ...

    @property
    def roles(self) -> frozenset[Role]:
        """The models it needs."""
        ...

    @property
    def examples(self) -> ExampleKind:
        """What one example is made from."""
        ...

    def units(self, batch: Batch) -> int:
        """How many supervised units `loss` will count in this batch, known before the forward pass."""
        ...

    def prepare(self, models: Models, batch: Batch) -> Batch:
        """The batch with what the loss needs besides data; the identity for offline stages, a rollout for online ones."""
        ...

    def loss(self, models: Models, batch: Batch) -> Loss:
        """Forward pass and loss; differentiable in the policy's trainable weights."""
        ...

"""What a stage is: which models and examples it needs, and its loss. The engine knows stages through this page only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tunewright.data.collate import Batch
    from tunewright.runtime import Ranks


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
    PREFERENCE = "preference"
    FEEDBACK = "feedback"
    PROMPT = "prompt"

    @property
    def guesses_tokens(self) -> bool:
        """Whether each token of it that has a label is predicted from those before it, and nothing else is asked."""
        return self in (ExampleKind.TEXT, ExampleKind.CONVERSATION)


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


@dataclass(frozen=True, slots=True)
class StepContext:
    """Which step batches are made ready for. `step`: steps taken before it; `training`: whether weights will change."""

    ranks: Ranks
    step: int
    seed: int
    training: bool


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

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the metrics that training logs: each rank adds up the same ones, whatever its batches hold."""
        ...

    @property
    def rows_interact(self) -> bool:
        """Whether the loss of a row depends on the other rows of its step, so that an evaluation takes the whole set as one."""
        ...

    def units(self, batch: Batch) -> int:
        """How many supervised units `loss` will count in this batch, known before the forward pass."""
        ...

    def updates(self, models: Models, batches: Sequence[Batch], context: StepContext) -> Iterator[Sequence[Batch]]:
        """The optimizer updates of one step, each as the micro-batches of this rank, with what the loss needs besides data.

        Offline stages yield the batches once; online ones roll out and yield the experience as often as they train on it. Runs
        without gradients. All ranks yield equally often.
        """
        ...

    def loss(self, models: Models, batch: Batch) -> Loss:
        """Forward pass and loss; differentiable in the policy's trainable weights."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """A stage that knows something from earlier steps: it goes into checkpoints, as JSON values, and is the same on every rank."""

    def state(self) -> dict[str, Any]:
        """What the next step depends on, besides the models."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        ...

"""Pre-training: next-token cross-entropy on every token of documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from tunewright.stages.causal_lm import next_token_loss, trained_tokens
from tunewright.stages.stage import ExampleKind, Loss, Models, Role, StepContext

if TYPE_CHECKING:
    from tunewright.config.run import RunConfig
    from tunewright.data.collate import Batch


@dataclass(frozen=True, slots=True)
class PreTraining:
    """`stage: pt`."""

    name: str = "pt"
    roles: frozenset[Role] = frozenset({Role.POLICY})
    examples: ExampleKind = ExampleKind.TEXT
    label_smoothing: float = 0.0
    z_loss_weight: float = 0.0
    measures: tuple[str, ...] = ()
    rows_interact: bool = False

    @classmethod
    def of(cls, run: RunConfig) -> Self:
        """The stage as the run wants it."""
        return cls(label_smoothing=run.loss.label_smoothing_factor, z_loss_weight=run.loss.z_loss_weight)

    def units(self, batch: Batch) -> int:
        """Trained tokens: all but the first of each document."""
        return trained_tokens(batch)

    def updates(self, models: Models, batches: Sequence[Batch], context: StepContext) -> Iterator[Sequence[Batch]]:
        """One update, of the batches as they are."""
        yield batches

    def loss(self, models: Models, batch: Batch) -> Loss:
        """Sum of the cross-entropy over the tokens of each document."""
        return next_token_loss(models[Role.POLICY], batch, self.label_smoothing, self.z_loss_weight)

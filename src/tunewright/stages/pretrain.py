"""Pre-training: next-token cross-entropy on every token of documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunewright.stages.causal_lm import next_token_loss, trained_tokens
from tunewright.stages.stage import ExampleKind, Loss, Models, Role

if TYPE_CHECKING:
    from tunewright.data.collate import Batch


@dataclass(frozen=True, slots=True)
class PreTraining:
    """`stage: pt`."""

    name: str = "pt"
    roles: frozenset[Role] = frozenset({Role.POLICY})
    examples: ExampleKind = ExampleKind.TEXT
    label_smoothing: float = 0.0

    def units(self, batch: Batch) -> int:
        """Trained tokens: all but the first of each document."""
        return trained_tokens(batch)

    def prepare(self, models: Models, batch: Batch) -> Batch:
        """The batch itself."""
        return batch

    def loss(self, models: Models, batch: Batch) -> Loss:
        """Sum of the cross-entropy over the tokens of each document."""
        return next_token_loss(models[Role.POLICY], batch, self.label_smoothing)

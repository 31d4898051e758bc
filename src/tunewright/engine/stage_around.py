"""A stage with something around it: what does not change is the stage's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunewright.data.collate import Batch
    from tunewright.stages.stage import ExampleKind, Loss, Models, Role, Stage, StepContext


@dataclass(frozen=True, slots=True)
class StageAround:
    """Answers as `stage` does, but for what a subclass answers itself."""

    stage: Stage

    @property
    def name(self) -> str:
        """The stage's own."""
        return self.stage.name

    @property
    def roles(self) -> frozenset[Role]:
        """The stage's own."""
        return self.stage.roles

    @property
    def examples(self) -> ExampleKind:
        """The stage's own."""
        return self.stage.examples

    @property
    def measures(self) -> tuple[str, ...]:
        """The stage's own."""
        return self.stage.measures

    @property
    def rows_interact(self) -> bool:
        """The stage's own."""
        return self.stage.rows_interact

    def units(self, batch: Batch) -> int:
        """The stage's own."""
        return self.stage.units(batch)

    def updates(self, models: Models, batches: Sequence[Batch], context: StepContext) -> Iterator[Sequence[Batch]]:
        """The stage's own."""
        return self.stage.updates(models, batches, context)

    def loss(self, models: Models, batch: Batch) -> Loss:
        """The stage's own."""
        return self.stage.loss(models, batch)

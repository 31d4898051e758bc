"""What may watch a run at work. The session calls each hook at the same places; a hook without an interest in one does nothing there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunewright.engine.health import Suspects
    from tunewright.engine.metrics import Metrics
    from tunewright.engine.state import TrainState


class StepHook:
    """Follows the steps of a run; every method is called on every rank."""

    def begin(self, state: TrainState) -> None:
        """Before the first step of this process."""

    def inspect(self, suspects: Suspects) -> None:
        """After the backward pass of a step, before its update; may refuse the step (NumericError), on all ranks together."""

    def advanced(self, state: TrainState) -> None:
        """After a step; `state` counts it."""

    def figures(self) -> Metrics:
        """What goes into the training results."""
        return {}

    def close(self) -> None:
        """After the last step, or after an error."""

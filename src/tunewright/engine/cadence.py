"""When the loop logs, evaluates and saves: pure functions of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cadence:
    """`strategy` is no, steps or epoch; `every` is in optimizer steps."""

    strategy: str
    every: int
    total_steps: int

    @classmethod
    def of(cls, strategy: str, every: float, total_steps: int) -> Cadence:
        """`every` below 1 is a fraction of the run, rounded up to whole steps."""
        steps = math.ceil(every * total_steps) if every < 1 else int(every)
        return cls(strategy, max(1, steps), total_steps)

    def due(self, step: int, ends_epoch: bool) -> bool:
        """Whether it is time after `step` (counted from 1)."""
        if self.strategy == "steps":
            return step % self.every == 0
        return self.strategy == "epoch" and ends_epoch


def total_steps(steps_per_epoch: int, num_train_epochs: float, max_steps: int) -> int:
    """Optimizer steps of the run: `max_steps` if positive, else the epochs' steps, a begun step counted whole."""
    return max_steps if max_steps > 0 else max(1, math.ceil(num_train_epochs * steps_per_epoch))


def improved(value: float, best: float | None, greater_is_better: bool, threshold: float) -> bool:
    """Whether `value` beats `best` by more than `threshold`; a first finite value always does, NaN never."""
    if math.isnan(value):
        return False
    if best is None:
        return True
    gain = value - best if greater_is_better else best - value
    return gain > threshold

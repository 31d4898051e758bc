"""What a run is at: everything a resume needs besides weights, optimizer, schedule and random numbers."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

_NEWER: Final[dict[str, Any]] = {"within": 0, "slots_read": 0, "slots_dropped": 0, "notes_told": 0, "metric_sums": {}, "bad_steps": 0,
                                 "bad_steps_in_a_row": 0}
"""Fields that older checkpoints lack, with what they would say."""


@dataclass(slots=True)
class TrainState:
    """The position of a run; mutable, and moved along by the loop alone.

    `offset`: samples of the current epoch consumed over all ranks, or slots of a stream; `within`: packed sequences taken of the slots
    that begin there. `slots_read`, `slots_dropped`: of a stream, since the start; `notes_told`: lines of its audit.
    `loss_sum`, `loss_count`, `metric_sums` [sum, count]: since the last log entry; `total_...`: since the start. `best_step`: where
    `best_metric` was reached.
    `elapsed_s`: training time up to the last checkpoint. `bad_steps`: steps that were counted and not applied, because they were not
    finite; `bad_steps_in_a_row`: those since the last that was.
    """

    global_step: int = 0
    epoch: int = 0
    offset: int = 0
    samples_seen: int = 0
    tokens_seen: int = 0
    loss_sum: float = 0.0
    loss_count: float = 0.0
    total_loss_sum: float = 0.0
    total_loss_count: float = 0.0
    best_metric: float | None = None
    best_step: int | None = None
    evaluations_without_gain: int = 0
    elapsed_s: float = 0.0
    log_history: list[dict[str, Any]] = field(default_factory=list)
    within: int = 0
    slots_read: int = 0
    slots_dropped: int = 0
    notes_told: int = 0
    metric_sums: dict[str, list[float]] = field(default_factory=dict)
    bad_steps: int = 0
    bad_steps_in_a_row: int = 0

    def passes(self, samples_per_epoch: int) -> float:
        """Passes over the data so far; whole ones, where nobody knows how long one is."""
        return self.epoch + (self.offset / samples_per_epoch if samples_per_epoch else 0.0)

    def to_json(self) -> str:
        """Text that `from_json` turns back into an equal state: Python writes a float with as many digits as it takes to read
        back every bit, and NaN and infinities by their names."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> TrainState:
        """Raises ValueError if the text is no object, lacks a field or has one too many."""
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"the training state is {type(values).__name__} instead of an object")
        expected = {one.name for one in fields(cls)}
        values = {**deepcopy(_NEWER), **values}
        if set(values) != expected:
            raise ValueError(f"the training state has other fields: {', '.join(sorted(set(values) ^ expected))}")
        return cls(**values)

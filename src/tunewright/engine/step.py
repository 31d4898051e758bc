"""One optimizer step: forward and backward over a window's micro-batches, clip, check, update.

The gradient is that of (sum of the loss over all micro-batches and ranks) / (count of supervised units over all of them), so
batch 8 = 4 x 2 = 2 x 4 = packed = two ranks x 4.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from tunewright.engine.memory import memory_told
from tunewright.engine.optimizers.groups import parameters_of
from tunewright.stages.stage import Role, StepContext

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from tunewright.data.collate import Batch
    from tunewright.engine.batches import Window
    from tunewright.runtime import Ranks
    from tunewright.stages.stage import Models, Stage


@dataclass(frozen=True, slots=True)
class Machinery:
    """What a step works with: the stage, its models, the optimizer and its schedule, devices and ranks."""

    stage: Stage
    models: Models
    optimizer: Optimizer
    scheduler: LRScheduler
    accelerator: Accelerator
    ranks: Ranks
    max_grad_norm: float
    seed: int = 0


@dataclass(frozen=True, slots=True)
class StepResult:
    """Over all ranks: loss sum and count of supervised units, tokens run; the gradient's norm before clipping, of the last update; the
    rate used; (sum, count) of the stage's metrics. Updates that are `left_out` are in none of these but the tokens."""

    loss_sum: float
    count: float
    tokens: int
    grad_norm: float
    learning_rate: float
    metrics: Mapping[str, tuple[float, float]]
    left_out: int = 0

    @property
    def loss(self) -> float:
        """Mean loss per supervised unit; NaN where no update was applied."""
        return self.loss_sum / self.count if self.count else math.nan


class Sums(NamedTuple):
    """Of one update on this rank: the sum of the loss, and (sum, count) of each metric."""

    loss: float
    metrics: Mapping[str, tuple[float, float]]


def updates_of(machinery: Machinery, window: Window, step: int) -> Iterator[Sequence[Batch]]:
    """The micro-batches of each update that a step consists of, on the device and ready for the loss."""
    batches = [batch.to(machinery.accelerator.device) for batch in window.batches]
    context = StepContext(machinery.ranks, step, machinery.seed, training=True)
    updates = machinery.stage.updates(machinery.models, batches, context)
    while True:
        with torch.no_grad(), machinery.accelerator.autocast():
            update = next(updates, None)
        if update is None:
            return
        yield update


def accumulate(machinery: Machinery, batches: Sequence[Batch], count: float) -> Sums:
    """Backward over every micro-batch of one update on this rank.

    Ranks average their gradients, hence the factor world_size; only the last micro-batch synchronises them.
    """
    policy = machinery.models[Role.POLICY]
    total = 0.0
    metrics: dict[str, tuple[float, float]] = {}
    for number, batch in enumerate(batches, start=1):
        last = number == len(batches)
        with memory_told(batch), contextlib.nullcontext() if last else machinery.accelerator.no_sync(policy):
            with machinery.accelerator.autocast():
                loss = machinery.stage.loss(machinery.models, batch)
            machinery.accelerator.backward(loss.sum * (machinery.ranks.world_size / count))
        total += float(loss.sum.detach())
        for name in machinery.stage.measures:
            metrics[name] = added(metrics.get(name, (0.0, 0.0)), loss.metrics.get(name, (0.0, 0.0)))
    return Sums(total, metrics)


def added(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """The sum and count of two parts of a mean together."""
    return one[0] + float(other[0]), one[1] + float(other[1])


def clip_gradients(machinery: Machinery) -> float:
    """The gradient's total norm over all trainable tensors, scaled down to max_grad_norm if that is positive."""
    bound = machinery.max_grad_norm if machinery.max_grad_norm > 0 else float("inf")
    trainable = [weight for weight in parameters_of(machinery.optimizer) if weight.requires_grad]
    machinery.accelerator.unscale_gradients()
    return float(torch.nn.utils.clip_grad_norm_(trainable, bound))


def update(machinery: Machinery) -> float:
    """Apply the gradients; returns the learning rate that was used."""
    rate = float(machinery.scheduler.get_last_lr()[0])
    machinery.optimizer.step()
    machinery.optimizer.zero_grad()
    return rate


def leave_out(machinery: Machinery) -> float:
    """Forget the gradients: neither weights nor moments move. Returns the learning rate that would have been used."""
    if machinery.accelerator.scaler is not None:
        machinery.accelerator.scaler.update()  # or it would hold the gradients for unscaled ones of the next step
    machinery.optimizer.zero_grad()
    return float(machinery.scheduler.get_last_lr()[0])


def move_schedule(machinery: Machinery) -> None:
    """Move the schedule on after the updates of a step; one that float16's loss scaling skips does not move it."""
    if not machinery.accelerator.optimizer_step_was_skipped:
        machinery.scheduler.step()

"""One optimizer step: forward and backward over a window's micro-batches, clip, check, update.

The gradient is that of (sum of the loss over all micro-batches and ranks) / (count of supervised units over all of them), so
batch 8 = 4 x 2 = 2 x 4 = packed = two ranks x 4.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tunewright.engine.memory import memory_told
from tunewright.stages.stage import Role

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

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


@dataclass(frozen=True, slots=True)
class StepResult:
    """Over all ranks: loss sum and count of supervised units, tokens run; the gradient's norm before clipping; the rate used."""

    loss_sum: float
    count: float
    tokens: int
    grad_norm: float
    learning_rate: float

    @property
    def loss(self) -> float:
        """Mean loss per supervised unit."""
        return self.loss_sum / self.count


def accumulate(machinery: Machinery, window: Window, count: float) -> float:
    """Backward over every micro-batch of this rank; returns this rank's sum of the loss.

    Ranks average their gradients, hence the factor world_size; only the last micro-batch synchronises them.
    """
    policy = machinery.models[Role.POLICY]
    total = 0.0
    for number, host_batch in enumerate(window.batches, start=1):
        batch = machinery.stage.prepare(machinery.models, host_batch.to(machinery.accelerator.device))
        last = number == len(window.batches)
        with memory_told(host_batch), contextlib.nullcontext() if last else machinery.accelerator.no_sync(policy):
            with machinery.accelerator.autocast():
                loss = machinery.stage.loss(machinery.models, batch)
            machinery.accelerator.backward(loss.sum * (machinery.ranks.world_size / count))
        total += float(loss.sum.detach())
    return total


def clip_gradients(machinery: Machinery) -> float:
    """The gradient's total norm over all trainable tensors, scaled down to max_grad_norm if that is positive."""
    policy = machinery.models[Role.POLICY]
    bound = machinery.max_grad_norm if machinery.max_grad_norm > 0 else float("inf")
    trainable = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    machinery.accelerator.unscale_gradients()
    return float(torch.nn.utils.clip_grad_norm_(trainable, bound))


def update(machinery: Machinery) -> float:
    """Apply the gradients and move the schedule on; returns the learning rate that was used.

    A step that float16's loss scaling skips does not move the schedule.
    """
    rate = float(machinery.scheduler.get_last_lr()[0])
    machinery.optimizer.step()
    if not machinery.accelerator.optimizer_step_was_skipped:
        machinery.scheduler.step()
    machinery.optimizer.zero_grad()
    return rate

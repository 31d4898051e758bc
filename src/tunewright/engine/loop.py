"""The training loop: epochs, windows, steps, and what happens between them.

A run is a function of its state: entered with the state of any checkpoint it goes on as if it had never stopped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tunewright.engine.cadence import Cadence, improved
from tunewright.engine.step import StepResult, accumulate, clip_gradients, update
from tunewright.errors import InputError, Preempted
from tunewright.stages.stage import Role

if TYPE_CHECKING:
    from tunewright.engine.batches import TrainBatches, Window
    from tunewright.engine.state import TrainState
    from tunewright.engine.step import Machinery

Metrics = dict[str, float]


@dataclass(frozen=True, slots=True)
class Best:
    """Which metric decides the best evaluation, and when to stop waiting for a better one."""

    metric: str
    greater_is_better: bool
    keep: bool
    patience: int | None
    threshold: float


@dataclass(frozen=True, slots=True)
class Timetable:
    """When the loop logs, evaluates and saves, and when it ends. `save_epochs`: epochs between two further checkpoints."""

    total_steps: int
    logging: Cadence
    evaluation: Cadence
    saving: Cadence
    first_evaluation: float
    log_first_step: bool
    evaluate_first: bool
    best: Best
    save_epochs: int | None = None

    def saves(self, state: TrainState, ends_epoch: bool) -> bool:
        """Whether it is time for a checkpoint, after the step that `state` counts."""
        by_epochs = self.save_epochs is not None and ends_epoch and state.epoch % self.save_epochs == 0
        return by_epochs or self.saving.due(state.global_step, ends_epoch)


class Services(Protocol):
    """What the loop asks of the rest of the engine."""

    def stop_requested(self) -> bool:
        """Whether a signal asked this rank to stop."""
        ...

    def inspect(self, state: TrainState, window: Window, loss: float, grad_norm: float) -> None:
        """Refuse a step whose loss or gradient is not finite (NumericError); watch what moves. Runs before the update."""
        ...

    def log(self, state: TrainState, metrics: Metrics) -> None:
        """Write one log entry."""
        ...

    def advanced(self, state: TrainState, result: StepResult) -> None:
        """Show progress after a step."""
        ...

    def evaluate(self, state: TrainState) -> Metrics:
        """Evaluate on every evaluation set; the random numbers of training are not touched."""
        ...

    def save(self, state: TrainState) -> None:
        """Commit a checkpoint of this step."""
        ...


def train(machinery: Machinery, batches: TrainBatches, timetable: Timetable, services: Services, state: TrainState) -> None:
    """Run until the last step, an early stop, or a signal (Preempted, after a checkpoint). `state` is moved along."""
    machinery.models[Role.POLICY].train()
    if timetable.evaluate_first and not state.log_history and _evaluate(machinery, timetable, services, state) and timetable.best.keep:
        services.save(state)  # the best evaluation may turn out to be the one before the first step
    while not finished(state, timetable):
        for window in batches.windows(state.epoch, state.offset):
            count = _agree(machinery, services, window, state)
            result = take_step(machinery, window, count, services, state)
            advance(state, window, result)
            services.advanced(state, result)
            _between_steps(machinery, batches, timetable, services, _After(state, window, result))
            if finished(state, timetable):
                break


def finished(state: TrainState, timetable: Timetable) -> bool:
    """Whether the run is over: all steps taken, or no better evaluation for as long as patience lasts."""
    patience = timetable.best.patience
    return state.global_step >= timetable.total_steps or (patience is not None and state.evaluations_without_gain >= patience)


def take_step(machinery: Machinery, window: Window, count: float, services: Services, state: TrainState) -> StepResult:
    """Forward, backward, clip, inspect, update."""
    local_sum = accumulate(machinery, window, count)
    loss_sum, tokens = machinery.ranks.all_reduce_sum([local_sum, float(sum(batch.num_tokens for batch in window.batches))])
    grad_norm = clip_gradients(machinery)
    services.inspect(state, window, loss_sum / count, grad_norm)
    return StepResult(loss_sum, count, int(tokens), grad_norm, update(machinery))


def advance(state: TrainState, window: Window, result: StepResult) -> None:
    """Move the state past one step."""
    state.global_step += 1
    state.offset += window.consumed
    state.samples_seen += window.consumed
    state.tokens_seen += result.tokens
    state.loss_sum += result.loss_sum
    state.loss_count += result.count
    state.total_loss_sum += result.loss_sum
    state.total_loss_count += result.count
    if window.ends_epoch:
        state.epoch, state.offset = state.epoch + 1, 0


@dataclass(frozen=True, slots=True)
class _After:
    """The step just taken."""

    state: TrainState
    window: Window
    result: StepResult


def _agree(machinery: Machinery, services: Services, window: Window, state: TrainState) -> float:
    """The count of supervised units of this step over all ranks; all ranks learn of a stop request in the same exchange, so that
    they save the same step however far apart the signal reached them."""
    units = sum(machinery.stage.units(batch) for batch in window.batches)
    count, stops = machinery.ranks.all_reduce_sum([float(units), float(services.stop_requested())])
    if stops:
        services.save(state)
        raise Preempted(f"stopped by a signal after step {state.global_step}; checkpoint saved",
                        mend="run the same command again to go on")
    if count == 0:
        raise InputError(f"no trained token in the rows of step {state.global_step + 1}")
    return count


def _between_steps(machinery: Machinery, batches: TrainBatches, timetable: Timetable, services: Services, after: _After) -> None:
    state, ends_epoch = after.state, after.window.ends_epoch
    over = state.global_step >= timetable.total_steps
    first = timetable.log_first_step and state.global_step == 1
    if first or timetable.logging.due(state.global_step, ends_epoch) or (over and timetable.logging.strategy != "no"):
        _log_training(batches, services, after)
    gained = False
    if timetable.evaluation.due(state.global_step, ends_epoch) and _position(timetable, state) >= timetable.first_evaluation:
        gained = _evaluate(machinery, timetable, services, state)
    over = finished(state, timetable)
    saving = timetable.saves(state, ends_epoch) or (over and timetable.saving.strategy != "no")
    if saving or (gained and timetable.best.keep):
        services.save(state)


def _position(timetable: Timetable, state: TrainState) -> float:
    """Progress in the unit of the evaluation strategy."""
    return state.epoch if timetable.evaluation.strategy == "epoch" else state.global_step


def _log_training(batches: TrainBatches, services: Services, after: _After) -> None:
    """Log the mean loss since the last entry."""
    state = after.state
    services.log(state, {
        "loss": state.loss_sum / state.loss_count if state.loss_count else math.nan,
        "grad_norm": after.result.grad_norm,
        "learning_rate": after.result.learning_rate,
        "epoch": state.epoch + state.offset / batches.samples_per_epoch,
    })
    state.loss_sum, state.loss_count = 0.0, 0.0


def _evaluate(machinery: Machinery, timetable: Timetable, services: Services, state: TrainState) -> bool:
    """Evaluate, log, keep account of the best; whether this one is better than all before."""
    policy = machinery.models[Role.POLICY]
    policy.eval()
    metrics = services.evaluate(state)
    policy.train()
    services.log(state, metrics)
    best = timetable.best
    if best.metric not in metrics:
        if best.keep or best.patience is not None:
            raise InputError(f"metric_for_best_model `{best.metric}` is not among the metrics: {', '.join(sorted(metrics))}")
        return False
    if not improved(metrics[best.metric], state.best_metric, best.greater_is_better, best.threshold):
        state.evaluations_without_gain += 1
        return False
    state.best_metric, state.best_step, state.evaluations_without_gain = metrics[best.metric], state.global_step, 0
    return True

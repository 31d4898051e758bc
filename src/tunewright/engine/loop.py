"""The training loop: epochs, windows, steps, and what happens between them.

A run is a function of its state: entered with the state of any checkpoint it goes on as if it had never stopped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tunewright.engine.cadence import Cadence, improved
from tunewright.engine.step import StepResult, accumulate, added, clip_gradients, leave_out, move_schedule, update, updates_of
from tunewright.errors import InputError, Preempted
from tunewright.stages.stage import Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunewright.data.collate import Batch
    from tunewright.engine.batches import Batches, Window
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

    def stop_requested(self) -> str | None:
        """What asked this rank to stop here, if anything did."""
        ...

    def inspect(self, state: TrainState, batches: Sequence[Batch], loss: float, grad_norm: float) -> bool:
        """Whether the update may be applied: its loss and gradient are finite. Raises NumericError for too many that are not. Watches what
        moves."""
        ...

    def log(self, state: TrainState, metrics: Metrics) -> None:
        """Write one log entry."""
        ...

    def advanced(self, state: TrainState, result: StepResult) -> None:
        """Show progress after a step."""
        ...

    def audited(self, state: TrainState, window: Window, notes: int) -> None:
        """Write down what was found in the rows of a stream, `notes` of them over all ranks; refuse too many dropped rows
        (InputError, on all ranks together)."""
        ...

    def evaluate(self, state: TrainState) -> Metrics:
        """Evaluate on every evaluation set; the random numbers of training are not touched."""
        ...

    def save(self, state: TrainState) -> None:
        """Commit a checkpoint of this step."""
        ...


def train(machinery: Machinery, batches: Batches, timetable: Timetable, services: Services, state: TrainState) -> None:
    """Run until the last step, an early stop, or a signal (Preempted, after a checkpoint). `state` is moved along."""
    machinery.models[Role.POLICY].train()
    if timetable.evaluate_first and not state.log_history and _evaluate(machinery, timetable, services, state) and timetable.best.keep:
        services.save(state)  # the best evaluation may turn out to be the one before the first step
    while not finished(state, timetable):
        is_fruitless = not (state.offset or state.within)
        for window in batches.windows(state.epoch, state.offset, state.within):
            agreed = _agree(machinery, services, window, state)
            result = take_step(machinery, window, services, state) if agreed.units else None
            advance(state, window, agreed, result)
            services.audited(state, window, agreed.notes)
            is_fruitless = is_fruitless and result is None
            if result is None:
                _passed_over(machinery, timetable, services, state, window)
                continue
            services.advanced(state, result)
            _between_steps(machinery, batches, timetable, services, _After(state, window, result))
            if finished(state, timetable):
                break
        if is_fruitless:
            raise InputError("no row of the whole stream has a token to train", mend="see the audit of the stream for the reasons")


def finished(state: TrainState, timetable: Timetable) -> bool:
    """Whether the run is over: all steps taken, or no better evaluation for as long as patience lasts."""
    patience = timetable.best.patience
    return state.global_step >= timetable.total_steps or (patience is not None and state.evaluations_without_gain >= patience)


def take_step(machinery: Machinery, window: Window, services: Services, state: TrainState) -> StepResult:
    """The updates of one step: forward, backward, clip, inspect, update. One that is not finite is left out; the schedule moves on."""
    total: StepResult | None = None
    for batches in updates_of(machinery, window, state.global_step):
        result = _take_update(machinery, batches, services, state)
        total = result if total is None else _joined(total, result)
    if total is None:
        raise ValueError(f"stage {machinery.stage.name} made no update of a step")
    move_schedule(machinery)
    return total


def _take_update(machinery: Machinery, batches: Sequence[Batch], services: Services, state: TrainState) -> StepResult:
    units = sum(machinery.stage.units(batch) for batch in batches)
    count, tokens = machinery.ranks.all_reduce_sum([float(units), float(sum(batch.num_tokens for batch in batches))])
    mine = accumulate(machinery, batches, count)
    names = machinery.stage.measures
    loss_sum, *figures = machinery.ranks.all_reduce_sum([mine.loss, *(part for name in names for part in mine.metrics[name])])
    grad_norm = clip_gradients(machinery)
    if not services.inspect(state, batches, loss_sum / count, grad_norm):
        return StepResult(0.0, 0.0, int(tokens), grad_norm, leave_out(machinery), dict.fromkeys(names, (0.0, 0.0)), left_out=1)
    metrics = {name: (figures[2 * number], figures[2 * number + 1]) for number, name in enumerate(names)}
    return StepResult(loss_sum, count, int(tokens), grad_norm, update(machinery), metrics)


def _joined(one: StepResult, other: StepResult) -> StepResult:
    """Two updates of one step as one result."""
    metrics = {name: added(part, other.metrics[name]) for name, part in one.metrics.items()}
    return StepResult(one.loss_sum + other.loss_sum, one.count + other.count, one.tokens + other.tokens, other.grad_norm,
                      other.learning_rate, metrics, one.left_out + other.left_out)


def advance(state: TrainState, window: Window, agreed: Agreed, result: StepResult | None) -> None:
    """Move the state past one step, or past rows of a stream of which nothing can be trained."""
    if result is not None:
        state.global_step += 1
        state.tokens_seen += result.tokens
        state.bad_steps += result.left_out > 0
        state.bad_steps_in_a_row = state.bad_steps_in_a_row + 1 if result.left_out else 0
        state.loss_sum += result.loss_sum
        state.loss_count += result.count
        state.total_loss_sum += result.loss_sum
        state.total_loss_count += result.count
        for name, part in result.metrics.items():
            total, count = state.metric_sums.get(name, (0.0, 0.0))
            state.metric_sums[name] = [total + part[0], count + part[1]]
    if window.streamed is None:
        state.offset += window.consumed
        state.samples_seen += window.consumed
    else:
        state.offset, state.within = window.streamed.offset, window.streamed.within
        state.samples_seen += agreed.samples
        state.slots_read += window.streamed.slots
        state.slots_dropped += agreed.dropped
    if window.ends_epoch:
        state.epoch, state.offset, state.within = state.epoch + 1, 0, 0


@dataclass(frozen=True, slots=True)
class _After:
    """The step just taken."""

    state: TrainState
    window: Window
    result: StepResult


class Agreed(NamedTuple):
    """Over all ranks: the supervised units of a step; of a stream also its samples, its rows that were dropped, what is to be told."""

    units: float
    samples: int
    dropped: int
    notes: int


def _agree(machinery: Machinery, services: Services, window: Window, state: TrainState) -> Agreed:
    """What the ranks must know of a step together; all of them learn of a stop request in the same exchange, so that they save the
    same step however far apart the signal reached them."""
    units = sum(machinery.stage.units(batch) for batch in window.batches)
    told = window.streamed
    mine = (0, 0, 0) if told is None else (window.consumed, told.dropped, len(told.notes))
    reason = services.stop_requested()
    count, stops, *sums = machinery.ranks.all_reduce_sum([float(units), float(reason is not None), *map(float, mine)])
    if stops:
        services.save(state)
        raise Preempted(f"stopped by {reason or 'a signal'} after step {state.global_step}; checkpoint saved",
                        mend="run the same command again to go on")
    if count == 0 and told is None:
        raise InputError(f"no trained token in the rows of step {state.global_step + 1}")
    return Agreed(count, *map(int, sums))


def _between_steps(machinery: Machinery, batches: Batches, timetable: Timetable, services: Services, after: _After) -> None:
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


def _passed_over(machinery: Machinery, timetable: Timetable, services: Services, state: TrainState, window: Window) -> None:
    """What comes at the end of an epoch, where the last rows of a stream are all unusable, so that no step does it."""
    if not window.ends_epoch:
        return
    evaluates = timetable.evaluation.strategy == "epoch" and state.epoch >= timetable.first_evaluation
    gained = evaluates and _evaluate(machinery, timetable, services, state)
    if timetable.saving.strategy == "epoch" or (gained and timetable.best.keep):
        services.save(state)


def _position(timetable: Timetable, state: TrainState) -> float:
    """Progress in the unit of the evaluation strategy."""
    return state.epoch if timetable.evaluation.strategy == "epoch" else state.global_step


def _log_training(batches: Batches, services: Services, after: _After) -> None:
    """Log the mean loss and metrics since the last entry; of steps that were left out, that there were some."""
    state = after.state
    services.log(state, {
        **({"loss": state.loss_sum / state.loss_count} if state.loss_count else {}),
        **{name: total / count for name, (total, count) in state.metric_sums.items() if count},
        **({"grad_norm": after.result.grad_norm} if math.isfinite(after.result.grad_norm) else {}),
        **({"bad_steps": state.bad_steps} if state.bad_steps else {}),
        "learning_rate": after.result.learning_rate,
        "epoch": state.passes(batches.samples_per_epoch),
    })
    state.loss_sum, state.loss_count, state.metric_sums = 0.0, 0.0, {}


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

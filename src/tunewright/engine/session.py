"""One run at work: what the loop asks for (`engine.loop.Services`), answered with the run's logs, evaluation and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.durable import SMALL, storage_errors
from tunewright.engine.evaluate import EvaluationPlan, evaluate_sets
from tunewright.engine.health import BadSteps, OverflowCount, Suspects, first_loss_note
from tunewright.engine.progress import Position
from tunewright.errors import StorageError
from tunewright.runtime import tell_step

if TYPE_CHECKING:
    from tunewright.adapters.movement import Movement
    from tunewright.data.collate import Batch
    from tunewright.data.records import Origin
    from tunewright.data.streaming.audit import StreamAudit
    from tunewright.engine.batches import Examples, Window
    from tunewright.engine.hooks import StepHook
    from tunewright.engine.loop import Metrics
    from tunewright.engine.progress import Display
    from tunewright.engine.signals import StopRequest
    from tunewright.engine.state import TrainState
    from tunewright.engine.step import Machinery, StepResult
    from tunewright.engine.trackers import Trackers

STEPS_WATCHED = 4
"""Steps after which the no-op detector speaks: the first may have a rate of zero, and LoRA's A moves from the second on."""

SHOWN = ("loss", "reward", "accuracy", "accuracies", "exact_match", "rouge-l")
"""Ends of the names of the evaluation metrics that the display shows; the log has all."""


@dataclass(frozen=True, slots=True)
class Outlets:
    """Where a run tells what happens: display, trackers, and the directory for evidence."""

    display: Display
    trackers: Trackers
    output_dir: Path

    def close(self) -> None:
        """Finish after a run that came to its end. Raises StorageError if the disk refuses the last of the log."""
        self.display.close()
        self.trackers.close()

    def abandon(self) -> None:
        """Finish after an error, which nothing that happens here may hide."""
        with suppress(StorageError):
            self.close()


@dataclass(frozen=True, slots=True)
class Known:
    """What the session knows of the run from the start. `num_samples`: of one pass, 0 where nobody knows. `answers`
    scores generated answers in each evaluation, if the run wants it; `logged_too` is what goes into every log entry besides."""

    total_steps: int
    num_samples: int
    vocab_size: int
    origin: Callable[[int], Origin]
    evaluation_sets: Mapping[str, Examples]
    evaluation_plan: EvaluationPlan
    answers: Callable[[], Metrics] | None
    logged_too: Callable[[Position], Metrics] = lambda position: {}
    stream_audit: StreamAudit | None = None


@dataclass(slots=True)
class Session:
    """Implements `Services`. `commit` publishes a checkpoint of a state; `movement` is dropped once it has spoken; `stop_after`: steps
    after which this process is to end."""

    machinery: Machinery
    outlets: Outlets
    known: Known
    stop: StopRequest
    commit: Callable[[TrainState], None]
    movement: Movement | None
    bad_steps: BadSteps
    hooks: tuple[StepHook, ...] = ()
    stop_after: int | None = None
    steps_taken: int = 0
    first_step: int = 0
    elapsed_before_s: float = 0.0
    tokens: int = 0
    saved_step: int = -1
    started: float = field(default_factory=time.monotonic)
    overflows: OverflowCount = field(default_factory=OverflowCount)

    def begin(self, state: TrainState) -> None:
        """Tell the hooks, and whoever watches the ranks, where this process begins."""
        tell_step(self.machinery.ranks, state.global_step)
        for hook in self.hooks:
            hook.begin(state)
        if self.known.stream_audit is not None:
            with storage_errors(self.outlets.output_dir, SMALL):
                self.known.stream_audit.begin(state.notes_told)

    def close(self) -> None:
        """Finish after a run that came to its end. Raises StorageError if the disk refuses the last of the log or of a record."""
        for hook in self.hooks:
            hook.close()
        for line in self.known.stream_audit.summary() if self.known.stream_audit is not None else ():
            self.outlets.display.note(line)
        self.outlets.close()

    def abandon(self) -> None:
        """Finish after an error, which nothing that happens here may hide."""
        for hook in self.hooks:
            with suppress(StorageError):
                hook.close()
        self.outlets.abandon()

    def stop_requested(self) -> str | None:
        """The signal that came, or `stop_after` once this process took so many steps."""
        if self.stop.requested:
            return self.stop.name
        return "stop_after" if self.stop_after is not None and self.steps_taken >= self.stop_after else None

    def inspect(self, state: TrainState, batches: Sequence[Batch], loss: float, grad_norm: float) -> bool:
        """Whether the update may be applied; under float16's loss scaling one with an infinite gradient may, within limits: the scaler
        skips it."""
        suspects = Suspects(state.global_step + 1, batches, self.known.origin, self.outlets.output_dir, self.machinery.ranks)
        for hook in self.hooks:
            hook.inspect(suspects)
        is_scaled = self.machinery.accelerator.scaler is not None
        measured = {"loss": loss} if is_scaled else {"loss": loss, "gradient norm": grad_norm}
        if not self.bad_steps.allows(measured, state.bad_steps_in_a_row, suspects):
            return False
        if is_scaled:
            self.overflows.note(grad_norm, suspects)
        guesses_tokens = self.machinery.stage.examples.guesses_tokens
        if state.global_step == 0 and guesses_tokens and (note := first_loss_note(loss, self.known.vocab_size)):
            self.outlets.display.note(f"warning: {note}")
        if self.movement is not None:
            self.movement.observe(float(self.machinery.scheduler.get_last_lr()[0]))
        return True

    def advanced(self, state: TrainState, result: StepResult) -> None:
        """Show progress; after the first steps, say which trainable tensors do not move."""
        self.tokens += result.tokens
        self.steps_taken += 1
        tell_step(self.machinery.ranks, state.global_step)
        for hook in self.hooks:
            hook.advanced(state)
        self.outlets.display.update(self.position(state), result.loss)
        if self.movement is not None and state.global_step - self.first_step >= STEPS_WATCHED:
            stuck = self.movement.stuck()
            if stuck:
                self.outlets.display.note(
                    f"warning: {len(stuck)} of {len(self.movement.names)} trainable tensors do not train: {'; '.join(stuck[:5])}")
            self.movement = None

    def audited(self, state: TrainState, window: Window, notes: int) -> None:
        """Write down what was found in the rows of a stream; refuse too many dropped rows."""
        audit = self.known.stream_audit
        if audit is None or window.streamed is None:
            return
        if notes:
            mine = [{"dataset": name, **note.to_json()} for name, note in window.streamed.notes]
            with storage_errors(self.outlets.output_dir, SMALL):
                state.notes_told += audit.add([note for part in self.machinery.ranks.gather_objects(mine) for note in part])
        audit.check(state.slots_read, state.slots_dropped, is_all=window.ends_epoch)

    def log(self, state: TrainState, metrics: Metrics) -> None:
        """Append to the log history, which resumes and plots read, and write to the trackers."""
        position = self.position(state)
        entry = {**metrics, **self.known.logged_too(position)}
        state.log_history.append({**entry, "step": state.global_step})
        self.outlets.trackers.log(position, entry)

    def evaluate(self, state: TrainState) -> Metrics:
        """Loss on every evaluation set, with accuracy or scores of generated answers if the run asks for them."""
        metrics = evaluate_sets(
            self.machinery.stage, self.machinery.models, self.known.evaluation_sets, self.known.evaluation_plan)
        if self.known.answers is not None:
            metrics |= self.known.answers()
        self.outlets.display.note("  ".join(f"{name} {value:.4f}" for name, value in metrics.items() if name.endswith(SHOWN)))
        return {**metrics, "epoch": self.epoch(state)}

    def save(self, state: TrainState) -> None:
        """Commit a checkpoint, once per step."""
        if self.saved_step != state.global_step:
            state.elapsed_s = self.elapsed_s
            self.commit(state)
            self.saved_step = state.global_step

    @property
    def elapsed_s(self) -> float:
        """Training time of the whole run, interruptions left out."""
        return self.elapsed_before_s + time.monotonic() - self.started

    def epoch(self, state: TrainState) -> float:
        """Passes over the data so far, as a fraction."""
        return state.passes(self.known.num_samples)

    def position(self, state: TrainState) -> Position:
        """Where the run stands."""
        return Position(
            step=state.global_step, total_steps=self.known.total_steps, epoch=self.epoch(state),
            elapsed_s=time.monotonic() - self.started, first_step=self.first_step, tokens=self.tokens, total_tokens=state.tokens_seen)


"""What a run will need: memory by component, whether it fits, how long it takes, and how large its batches could be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import torch

from tunewright.config.rules.rule import ONLINE
from tunewright.errors import TunewrightError, require
from tunewright.planning.batches import Batches, Rows, batches_of, divisors_below
from tunewright.planning.meter import Kind
from tunewright.planning.optimizer_state import Weight, state_bytes, update_bytes
from tunewright.planning.recomputation import switched
from tunewright.planning.shapes import ShapeModel, shape_model
from tunewright.planning.step import BatchShape, Setting, Step, simulate

if TYPE_CHECKING:
    from tunewright.config.run import RunConfig
    from tunewright.planning.machine import Machine

def gigabytes(size: float) -> str:
    """Bytes in units of 10^9, with as many digits as tell something."""
    return f"{size / 1e9:.2f}" if size < 1e11 else f"{size / 1e9:.0f}"


SAFE: Final = 0.92
"""Share of the available memory that a plan may fill: the estimate has an error of its own."""
_MOST_ROWS: Final = 1 << 16
_TRIED_ROWS: Final = 64
"""Rows of the largest batch that is tried for a suggestion."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """A run's needs as it is configured: its largest step, and the time of a usual one. `recomputes`: whether activations are."""

    machine: Machine
    batches: Batches
    rows: Rows
    step: Step
    recomputes: bool
    seconds_per_step: float

    @property
    def bytes(self) -> int:
        """The peak of the process on its device."""
        return whole(self.step, self.machine)

    @property
    def fits(self) -> bool:
        """Whether the peak is within what is available."""
        return within(self.step, self.machine)

    @property
    def seconds(self) -> float | None:
        """Of the whole run, evaluations left out."""
        return None if self.batches.steps is None else self.batches.steps * self.seconds_per_step

    def components(self) -> Mapping[str, int]:
        """Bytes by component at the peak; their sum is `bytes`."""
        found = {kind.value: self.step.peak.get(kind, 0) for kind in Kind}
        found["reserved by the allocator"] = round(self.step.bytes * self.machine.reserve)
        found["framework"] = self.machine.taken
        return {name: size for name, size in found.items() if size}


@dataclass(frozen=True, slots=True)
class Plan:
    """An outlook, and what else could be. `other`: with recomputation where it is off, without where it is on. `safe`: the largest
    micro-batch that fits, None where not even one row does, or where nobody knows the memory. `takes_tokens`: whether the run may have
    `micro_batch_tokens`."""

    outlook: Outlook
    other: Step
    safe: BatchShape | None
    takes_tokens: bool


def whole(step: Step, machine: Machine) -> int:
    """Bytes of the process at the peak of a step."""
    return machine.taken + round(step.bytes * (1 + machine.reserve))


def within(step: Step, machine: Machine) -> bool:
    """Whether a step fits, with room for the estimate's own error."""
    return machine.available is None or whole(step, machine) <= SAFE * machine.available


class Planner:
    """Plans for one model: it is built once, and tried with several batches."""

    def __init__(self, run: RunConfig, machine: Machine, *, ranks: int = 1) -> None:
        """Raises `Unplannable` for a model whose code cannot run without numbers, `InputError` for a stage that makes its own answers."""
        require(run.run.stage not in ONLINE, "how long answers will be is not known beforehand",
                mend="plan stage: sft on answers like them")
        self.run, self.machine, self.ranks = run, machine, ranks
        try:
            self.shaped: ShapeModel = shape_model(run)
        except FAILURES as error:
            raise Unplannable(error) from error
        self._weights = trained_weights(run, self.shaped)
        self._known: dict[tuple[BatchShape, bool, Setting], Step] = {}

    def batches(self, rows: Rows, per_device: int | None = None) -> Batches:
        """The run's micro-batches, of another size if `per_device` says so; the rows of an optimizer step stay the same."""
        return batches_of(resized(self.run, per_device), rows, flat=self.shaped.kernels.flat, ranks=self.ranks)

    def step(self, batch: BatchShape, *, recomputes: bool, accumulation: int | None = None) -> Step:
        """A step on a micro-batch."""
        setting = self._setting(accumulation)
        key = (batch, recomputes, setting)
        if key not in self._known:
            try:
                with switched(self.shaped.model, self.run.precision, on=recomputes):
                    self._known[key] = simulate(self.shaped, batch, setting, self.machine)
            except FAILURES as error:
                raise Unplannable(error) from error
        return self._known[key]

    def outlook(self, rows: Rows, per_device: int | None = None, *, recomputes: bool) -> Outlook:
        """The run as it is configured, with micro-batches of another size if `per_device` says so."""
        batches = self.batches(rows, per_device)
        step = self.step(batches.largest, recomputes=recomputes, accumulation=math.ceil(batches.number))
        return Outlook(self.machine, batches, rows, step, recomputes, self._seconds(batches, step))

    def plan(self, rows: Rows) -> Plan:
        """The whole plan of the run; with `gradient_checkpointing: auto` as it will be."""
        asked = self.run.precision.gradient_checkpointing
        found = self.outlook(rows, recomputes=asked)
        other = self.outlook(rows, recomputes=not asked)
        if self.run.precision.gradient_checkpointing_auto and not asked and not found.fits:
            found, other = other, found
        return Plan(found, other.step, self._safe(found), not self.run.data.streaming)

    def recomputes(self, rows: Rows) -> tuple[bool, str]:
        """What `gradient_checkpointing: auto` comes to, and why."""
        batches = self.batches(rows)
        step = self.step(batches.largest, recomputes=False, accumulation=math.ceil(batches.number))
        is_on = not within(step, self.machine)
        need = f"{gigabytes(whole(step, self.machine))} GB are {'needed' if is_on else 'enough'} without it"
        have = "" if self.machine.available is None else f", of {gigabytes(self.machine.available)} GB"
        return is_on, f"gradient_checkpointing: auto is {'on' if is_on else 'off'}: {need}{have}"

    def first_size(self, rows: Rows, *, recomputes: bool) -> int:
        """The largest size of a micro-batch, the configured one or one that divides it, that fits: 1 if none does."""
        asked = self.run.batching.per_device_train_batch_size
        fitting = (size for size in (asked, *divisors_below(asked)) if self.outlook(rows, size, recomputes=recomputes).fits)
        return next(fitting, 1)

    def _setting(self, accumulation: int | None) -> Setting:
        run = self.run
        mixed = torch.bfloat16 if run.precision.bf16 else torch.float16 if run.precision.fp16 else None
        trained = sum(weight.numbers * weight.itemsize for weight in self._weights)
        held = (accumulation or run.batching.gradient_accumulation_steps) > 1
        on_gpu = self.machine.reserve > 0
        return Setting(mixed, state_bytes(run.optimizer, self._weights), update_bytes(run.optimizer, self._weights, on_gpu=on_gpu),
                       held, trained if self.ranks > 1 else 0)

    def _seconds(self, batches: Batches, step: Step) -> float:
        """An optimizer step on batches of the usual size, from the time of the largest one."""
        largest = batches.largest
        micro = (step.work.other_s * batches.positions / largest.positions + step.work.attention_s * batches.squares / largest.squares)
        moved = 3 * sum(weight.numbers * weight.itemsize for weight in self._weights) + 2 * state_bytes(self.run.optimizer, self._weights)
        return micro * batches.number + moved / self.machine.bandwidth

    def _safe(self, found: Outlook) -> BatchShape | None:
        """Memory grows in proportion to the batch, once chunks of the loss are full: two sizes give the line, and the size that it leads to
        is tried, as far as that is quick."""
        if self.machine.available is None:
            return None
        longest = max(found.batches.largest.sequences, key=sum)

        def step_of(count: int) -> Step:
            return self.step(replace(found.batches.largest, sequences=(longest,) * count), recomputes=found.recomputes,
                             accumulation=math.ceil(found.batches.number))

        tried = {count: whole(step_of(count), self.machine) for count in (1, 3)}
        room = SAFE * self.machine.available
        count = _on_line(tried, room)
        while 3 < count <= _TRIED_ROWS and count not in tried:
            tried[count] = whole(step_of(count), self.machine)
            count = min(count, _on_line(tried, room)) if tried[count] > room else _on_line(tried, room)
        if count > _TRIED_ROWS:
            tried[_TRIED_ROWS] = whole(step_of(_TRIED_ROWS), self.machine)
            count = max(_TRIED_ROWS, _on_line(tried, room))
        return replace(found.batches.largest, sequences=(longest,) * count) if count else None


def _on_line(tried: Mapping[int, int], room: float) -> int:
    """The most rows that fit into `room`, by the straight line through the two largest batches that were tried; 0 if one does not."""
    if tried[1] > room:
        return 0
    (fewer, low), (more, high) = sorted(tried.items())[-2:]
    slope = max(1.0, (high - low) / (more - fewer))
    return max(1, min(_MOST_ROWS, more + math.floor((room - high) / slope)))


def resized(run: RunConfig, per_device: int | None) -> RunConfig:
    """The run with micro-batches of another size and as many more of them; an optimizer step sees the same rows."""
    batching = run.batching
    if per_device is None or per_device == batching.per_device_train_batch_size:
        return run
    times = batching.per_device_train_batch_size // per_device
    if times * per_device != batching.per_device_train_batch_size:
        raise ValueError(f"{per_device} does not divide {batching.per_device_train_batch_size}")
    return replace(run, batching=replace(batching, per_device_train_batch_size=per_device,
                                         gradient_accumulation_steps=batching.gradient_accumulation_steps * times))


def trained_weights(run: RunConfig, shaped: ShapeModel) -> list[Weight]:
    """The trained weights by shape, those of layers that were left out included. `is_matrix`: a linear layer's but the head's, which GaLore
    projects."""
    model, depth = shaped.model, shaped.depth
    outside = {id(one.weight) for one in (model.get_input_embeddings(), model.get_output_embeddings()) if one is not None}  # type: ignore[operator]
    targets = run.optimizer.galore_target
    last = set() if depth is None else {id(weight) for weight in depth.layers[-1].parameters()}
    more = 0 if depth is None else depth.count - len(depth.layers)
    return [Weight(tuple(weight.shape), weight.element_size(),
                   weight.dim() == 2 and id(weight) not in outside and ("all" in targets or any(one in name for one in targets)))
            for name, weight in model.named_parameters() if weight.requires_grad for _ in range(1 + (more if id(weight) in last else 0))]


class Unplannable(TunewrightError):
    """The model cannot be planned for; what it asked for that only numbers tell."""

    def __init__(self, error: BaseException) -> None:
        reason = " ".join(str(error).split())[:160]
        super().__init__(f"the model asks for numbers where only shapes are known: {type(error).__name__}: {reason}")


FAILURES: Final = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What torch, and model code that reads what it got from torch, raise where contents are wanted. No fault of the run's, which goes on."""

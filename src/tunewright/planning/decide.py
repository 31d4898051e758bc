"""What the planner decides at the start of a run: whether activations are recomputed, and how large the first micro-batches are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from tunewright.errors import TunewrightError
from tunewright.planning import report
from tunewright.planning.estimate import FAILURES, Planner, resized
from tunewright.planning.machine import machine_for
from tunewright.planning.rows import rows_of

if TYPE_CHECKING:
    from tunewright.config.run import RunConfig
    from tunewright.data.examples import PreparedSet
    from tunewright.data.streaming.stream import Stream
    from tunewright.planning.batches import Rows
    from tunewright.planning.machine import Machine
    from tunewright.runtime import Ranks


class Decided(NamedTuple):
    """The run with nothing left to decide, and what to tell of it."""

    run: RunConfig
    lines: tuple[str, ...]


def decide(run: RunConfig, examples: PreparedSet | Stream, ranks: Ranks, recorded: Mapping[str, Any] | None) -> Decided:
    """Settle `gradient_checkpointing: auto` and `auto_find_batch_size`, and estimate the run.

    `recorded`: the settings of the checkpoint that the run goes on from, whose decisions stand. Otherwise the main rank decides for all.
    A model that cannot be planned for is said, and runs as it is configured.
    """
    if recorded is not None:
        run = as_recorded(run, recorded)
    is_new = recorded is None
    answer = _estimated(run, examples, ranks, is_new) if ranks.is_main else None
    (told,) = ranks.gather_objects(answer)[:1]
    precision = replace(run.precision, gradient_checkpointing=told["recomputes"])
    return Decided(resized(replace(run, precision=precision), told["rows"]), tuple(told["lines"]))


def as_recorded(run: RunConfig, recorded: Mapping[str, Any]) -> RunConfig:
    """The run with the decisions that an earlier part of it took, wherever the configuration leaves them open."""
    if run.precision.gradient_checkpointing_auto and not run.precision.gradient_checkpointing:
        recomputes = bool(recorded.get("gradient_checkpointing", False))
        run = replace(run, precision=replace(run.precision, gradient_checkpointing=recomputes))
    rows = recorded.get("per_device_train_batch_size")
    if run.batching.auto_find_batch_size and isinstance(rows, int) and rows > 0 and run.batching.per_device_train_batch_size % rows == 0:
        run = resized(run, rows)
    return run


def _estimated(run: RunConfig, examples: PreparedSet | Stream, ranks: Ranks, is_new: bool) -> dict[str, Any]:
    """The main rank's answer, as JSON values."""
    try:
        machine = machine_for(use_cpu=run.run.use_cpu, processes=ranks.world_size)
        return _answer(run, rows_of(examples, run), machine, ranks, is_new)
    except (TunewrightError, OSError, *FAILURES) as error:  # what is wrong with the run itself, the run says
        told = error.message if isinstance(error, TunewrightError) else f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        open_ = run.precision.gradient_checkpointing_auto and is_new
        lines = [f"estimate: none: {told}", *(["gradient_checkpointing: auto is off: there is no estimate"] if open_ else [])]
        return {"recomputes": run.precision.gradient_checkpointing, "rows": run.batching.per_device_train_batch_size, "lines": lines}


def _answer(run: RunConfig, rows: Rows, machine: Machine, ranks: Ranks, is_new: bool) -> dict[str, Any]:
    planner = Planner(run, machine, ranks=ranks.world_size)
    asked, lines = run.batching.per_device_train_batch_size, list[str]()
    recomputes = run.precision.gradient_checkpointing
    size = asked
    if run.precision.gradient_checkpointing_auto and not recomputes and is_new:
        recomputes, line = planner.recomputes(rows)
        lines.append(line)
    if run.batching.auto_find_batch_size and is_new:
        size = planner.first_size(rows, recomputes=recomputes)
        if size != asked:
            lines.append(f"auto_find_batch_size: {size} rows instead of {asked} in a batch, and {asked // size} times as many batches")
    lines.append(report.line(planner.outlook(rows, size, recomputes=recomputes)))
    return {"recomputes": recomputes, "rows": size, "lines": lines}

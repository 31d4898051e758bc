"""Is the run healthy? A step that is not finite is not applied, and what it was made of is written down; several in a row end the run.
A first loss that makes no sense is reported."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from tunewright.durable import SMALL, storage_errors, write_json
from tunewright.errors import NumericError

if TYPE_CHECKING:
    from tunewright.data.collate import Batch
    from tunewright.data.records import Origin
    from tunewright.runtime import Ranks

ROWS_FILE: Final = "rows.json"
REPLAY: Final = "replay.py"
_REPLAY_TEXT: Final = '''"""Takes step {step} of the run above this folder once more, from the last checkpoint before it, and
names the module whose numbers first stop being finite. The run is left as it is; what this writes is in `replay`, beside this file.
"""

import sys

from tunewright.commands.replay import replay

sys.exit(replay(__file__))
'''
ROWS_NAMED = 5
"""Rows spelled out in an error line; the file has all of them."""
LEARNED = 0.01
"""Nats below which a first loss is suspicious: rows that a model has not seen cost more."""
EVIDENCE_KEPT = 10
"""Steps left out whose evidence a run keeps; that of the step which ends it is always written."""


@dataclass(frozen=True, slots=True)
class Suspects:
    """What a failing step was made of: this rank's micro-batches, how to name their rows, and where to write the evidence."""

    step: int
    batches: Sequence[Batch]
    origin: Callable[[int], Origin]
    output_dir: Path
    ranks: Ranks


@dataclass(frozen=True, slots=True)
class BadSteps:
    """Leaves out steps that are not finite, up to the `limit`th in a row, which ends the run; `tell` says so of those before it."""

    limit: int
    tell: Callable[[str], None]

    def allows(self, found: Mapping[str, float], before: int, suspects: Suspects) -> bool:
        """Whether a step may be applied, of which `found` was measured: values that are the same on every rank. `before` it, so many in a
        row were left out. Raises NumericError for the last that is borne."""
        what = next((name for name, value in found.items() if not math.isfinite(value)), None)
        if what is None:
            return True
        if before + 1 >= self.limit:
            demand_finite(what if not before else f"{what} ({before + 1} steps in a row)", found[what], suspects)
        mine = len(list(suspects.output_dir.glob("bad_step-*"))) if suspects.ranks.is_main else 0
        (kept,) = suspects.ranks.all_reduce_sum([float(mine)])
        rows = keep_evidence(what, found[what], suspects) if kept < EVIDENCE_KEPT else _rows(suspects)
        self.tell(f"warning: step {suspects.step}: the {what} is {found[what]}; the step was not applied "
                  f"({before + 1} in a row, {self.limit} end the run). Rows: {_named(rows)}")
        return False


def demand_finite(what: str, value: float, suspects: Suspects) -> None:
    """Refuse a step whose `value` (named `what`) is NaN or infinite, before its update is applied.

    `value` must be the same on every rank, so that they all raise together. Keeps the evidence and raises NumericError with the step,
    the value and the rows.
    """
    if math.isfinite(value):
        return
    rows = keep_evidence(what, value, suspects)
    folder = evidence_folder(suspects.output_dir, suspects.step)
    raise NumericError(
        f"step {suspects.step}: the {what} is {value}; the step was not applied. Rows: {_named(rows)}",
        mend=f"{folder} has rows and batches, and python {folder / REPLAY} takes the step again and names the module at fault; "
             "lower learning_rate or set max_grad_norm if it diverges")


def evidence_folder(output_dir: Path, step: int) -> Path:
    """Where the evidence of a step is."""
    return output_dir / f"bad_step-{step}"


def keep_evidence(what: str, value: float, suspects: Suspects) -> list[dict[str, Any]]:
    """Write down which rows the step had (no text of theirs), what the model was given on each rank, and how to take the step again.
    Returns the rows."""
    folder, ranks = evidence_folder(suspects.output_dir, suspects.step), suspects.ranks
    rows = _rows(suspects)
    with storage_errors(suspects.output_dir, SMALL):
        folder.mkdir(parents=True, exist_ok=True)
        write_batches(suspects.batches, folder / f"batch-{ranks.rank}.safetensors")
        if ranks.is_main:
            write_json(folder / ROWS_FILE, {
                "step": suspects.step, "quantity": what, "value": str(value), "ranks": ranks.world_size, "rows": rows,
                "directory": os.getcwd()})
            (folder / REPLAY).write_text(_REPLAY_TEXT.format(step=suspects.step), encoding="utf-8")
    ranks.barrier()
    return rows


def write_batches(batches: Sequence[Batch], path: Path) -> None:
    """Every tensor of the micro-batches, as `<number>.<field>`."""
    from safetensors.torch import save_file

    found = {name: tensor.detach().cpu().contiguous().clone()
             for number, batch in enumerate(batches) for name, tensor in _tensors(batch, str(number))}
    save_file(found, path)


def _tensors(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif is_dataclass(value):
        for one in fields(value):
            yield from _tensors(getattr(value, one.name), f"{name}.{one.name}")


def _rows(suspects: Suspects) -> list[dict[str, Any]]:
    """The rows of all ranks, each once."""
    samples = dict.fromkeys(sample for batch in suspects.batches for sample in batch.sample_ids)
    mine = [{"rank": suspects.ranks.rank, "sample_id": one, "origin": str(suspects.origin(one))} for one in samples]
    return [row for part in suspects.ranks.gather_objects(mine) for row in part]


def _named(rows: Sequence[dict[str, Any]]) -> str:
    shown = ", ".join(row["origin"] for row in rows[:ROWS_NAMED])
    return f"{shown} and {len(rows) - ROWS_NAMED} more" if len(rows) > ROWS_NAMED else shown


@dataclass(slots=True)
class OverflowCount:
    """Steps in a row that float16's loss scaling had to skip. The first few are how the scale is found; many are a fault."""

    limit: int = 24
    in_a_row: int = 0

    def note(self, grad_norm: float, suspects: Suspects) -> None:
        """Count a skipped step, or start over at a good one; raises NumericError once `limit` is reached."""
        if math.isfinite(grad_norm):
            self.in_a_row = 0
            return
        self.in_a_row += 1
        if self.in_a_row >= self.limit:
            demand_finite(f"gradient norm ({self.in_a_row} steps in a row)", grad_norm, suspects)


def first_loss_note(loss: float, vocab_size: int) -> str | None:
    """A warning if the first step's loss is more than 1 nat above ln(vocab_size), that of a uniform guess, or hardly above 0; else None."""
    uniform = math.log(vocab_size)
    if loss < LEARNED:
        return (f"the first loss is {loss:.2g}: there is nothing left to learn. "
                "Are the answers in the prompts, or was the model trained on these rows?")
    if loss <= uniform + 1.0:
        return None
    return (f"the first loss is {loss:.2f}, far above {uniform:.2f} = ln({vocab_size}), that of guessing at random: "
            "do the weights, the tokenizer and the template belong together?")

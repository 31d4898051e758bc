"""Is the run healthy? Non-finite numbers stop it before the update, with the rows at fault written down; a first
loss that makes no sense is reported."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.errors import NumericError

if TYPE_CHECKING:
    from tunewright.data.records import Origin
    from tunewright.runtime import Ranks

ROWS_NAMED = 5
"""Rows spelled out in an error line; the file has all of them."""


@dataclass(frozen=True, slots=True)
class Suspects:
    """What a failing step was made of: this rank's rows, how to name them, and where to write the evidence."""

    step: int
    sample_ids: tuple[int, ...]
    origin: Callable[[int], Origin]
    output_dir: Path
    ranks: Ranks


def demand_finite(what: str, value: float, suspects: Suspects) -> None:
    """Refuse a step whose `value` (named `what`) is NaN or infinite, before its update is applied.

    `value` must be the same on every rank, so that they all raise together. Writes `bad_batch-<step>.json` (no text of any
    row) and raises NumericError with the step, the value and the rows.
    """
    if math.isfinite(value):
        return
    mine = [{"rank": suspects.ranks.rank, "sample_id": one, "origin": str(suspects.origin(one))} for one in suspects.sample_ids]
    rows = [row for part in suspects.ranks.gather_objects(mine) for row in part]
    evidence = suspects.output_dir / f"bad_batch-{suspects.step}.json"
    if suspects.ranks.is_main:
        _write_evidence(evidence, {"step": suspects.step, "quantity": what, "value": str(value), "rows": rows})
    raise NumericError(
        f"step {suspects.step}: the {what} is {value}; the step was not applied. Rows: {_named(rows)}",
        mend=f"look at the rows listed in {evidence}, lower learning_rate or set max_grad_norm")


def _write_evidence(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


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
    """A warning if the first step's loss is more than 1 nat above ln(vocab_size), that of a uniform guess; else None."""
    uniform = math.log(vocab_size)
    if loss <= uniform + 1.0:
        return None
    return (f"the first loss is {loss:.2f}, far above {uniform:.2f} = ln({vocab_size}), that of guessing at random: "
            "do the weights, the tokenizer and the template belong together?")

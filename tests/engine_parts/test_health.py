"""Health checks. Oracle: the rules as stated, whole messages and whole files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tunewright.data.records import Origin
from tunewright.engine.health import OverflowCount, Suspects, demand_finite, first_loss_note
from tunewright.errors import NumericError
from tunewright.runtime import Ranks


def suspects(folder: Path, count: int = 2, rank: int = 0) -> Suspects:
    return Suspects(7, tuple(range(10, 10 + count)), lambda one: Origin("train.jsonl", one, one + 1), folder, Ranks(rank, 1))


@pytest.mark.parametrize("value", [0.0, -3.5, 1e300])
def test_finite_values_pass_and_write_nothing(tmp_path: Path, value: float) -> None:
    demand_finite("loss", value, suspects(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("value", "text"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_other_values_stop_and_leave_evidence(tmp_path: Path, value: float, text: str) -> None:
    with pytest.raises(NumericError) as caught:
        demand_finite("gradient norm", value, suspects(tmp_path / "out"))
    file = tmp_path / "out" / "bad_batch-7.json"
    assert caught.value.exit_code == 5
    assert caught.value.line() == (
        f"step 7: the gradient norm is {text}; the step was not applied. Rows: train.jsonl:11, train.jsonl:12; "
        f"look at the rows listed in {file}, lower learning_rate or set max_grad_norm")
    assert json.loads(file.read_text()) == {
        "step": 7, "quantity": "gradient norm", "value": text,
        "rows": [{"rank": 0, "sample_id": 10, "origin": "train.jsonl:11"}, {"rank": 0, "sample_id": 11, "origin": "train.jsonl:12"}]}


def test_long_lists_of_rows_are_cut_in_the_message_only(tmp_path: Path) -> None:
    with pytest.raises(NumericError, match=r"train.jsonl:15 and 4 more; look"):
        demand_finite("loss", math.nan, suspects(tmp_path, count=9))
    assert len(json.loads((tmp_path / "bad_batch-7.json").read_text())["rows"]) == 9


def test_overflows_are_tolerated_up_to_the_limit_in_a_row(tmp_path: Path) -> None:
    count = OverflowCount(limit=3)
    for norm in (math.inf, math.inf, 1.0, math.inf, math.nan):
        count.note(norm, suspects(tmp_path))
    with pytest.raises(NumericError, match=r"gradient norm \(3 steps in a row\) is inf"):
        count.note(math.inf, suspects(tmp_path))


def test_first_loss() -> None:
    """ln 1000 = 6.908; the note starts one nat above it."""
    assert first_loss_note(6.9, 1000) is None
    assert first_loss_note(7.9, 1000) is None
    assert first_loss_note(7.91, 1000) == (
        "the first loss is 7.91, far above 6.91 = ln(1000), that of guessing at random: "
        "do the weights, the tokenizer and the template belong together?")

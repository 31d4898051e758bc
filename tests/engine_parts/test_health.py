"""Health checks. Oracle: the rules as stated, whole messages and whole files."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tunewright.data.collate import Batch
from tunewright.data.records import Origin
from tunewright.data.sequences import Sequences
from tunewright.engine.health import EVIDENCE_KEPT, BadSteps, OverflowCount, Suspects, demand_finite, first_loss_note, write_batches
from tunewright.errors import NumericError
from tunewright.runtime import Ranks


def suspects(folder: Path, count: int = 2, rank: int = 0) -> Suspects:
    return Suspects(7, [batch(*range(10, 10 + count))], lambda one: Origin("train.jsonl", one, one + 1), folder, Ranks(rank, 1))


def batch(*samples: int) -> Batch:
    ids = torch.arange(len(samples)).unsqueeze(0)
    return Batch(ids, ids + 5, ids, None, torch.tensor([0, len(samples)], dtype=torch.int32), samples)


@pytest.mark.parametrize("value", [0.0, -3.5, 1e300])
def test_finite_values_pass_and_write_nothing(tmp_path: Path, value: float) -> None:
    demand_finite("loss", value, suspects(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("value", "text"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_other_values_stop_and_leave_evidence(tmp_path: Path, value: float, text: str) -> None:
    with pytest.raises(NumericError) as caught:
        demand_finite("gradient norm", value, suspects(tmp_path / "out"))
    folder = tmp_path / "out" / "bad_step-7"
    assert caught.value.exit_code == 5
    assert caught.value.line() == (
        f"step 7: the gradient norm is {text}; the step was not applied. Rows: train.jsonl:11, train.jsonl:12; "
        f"{folder} has rows and batches, and python {folder}/replay.py takes the step again and names the module at fault; "
        "lower learning_rate or set max_grad_norm if it diverges")
    assert json.loads((folder / "rows.json").read_text()) == {
        "step": 7, "quantity": "gradient norm", "value": text, "ranks": 1, "directory": str(Path.cwd()),
        "rows": [{"rank": 0, "sample_id": 10, "origin": "train.jsonl:11"}, {"rank": 0, "sample_id": 11, "origin": "train.jsonl:12"}]}
    assert "Takes step 7 of the run" in (folder / "replay.py").read_text()
    found = load_file(folder / "batch-0.safetensors")
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "0.input_ids": [[0, 1]], "0.targets": [[5, 6]], "0.position_ids": [[0, 1]], "0.bounds": [0, 2]}


def test_tensors_of_parts_are_kept_too(tmp_path: Path) -> None:
    """Two micro-batches, the second with answers; two fields that share memory are both written."""
    both = [batch(1), batch(2)]
    answers = Sequences(torch.tensor([4]), torch.tensor([5]), torch.tensor([0]), 1)
    write_batches([both[0], dataclasses.replace(both[1], sequences=answers, position_ids=both[1].input_ids)], tmp_path / "b.safetensors")
    found = load_file(tmp_path / "b.safetensors")
    assert {name for name in found if name.startswith("1.")} == {
        "1.input_ids", "1.targets", "1.position_ids", "1.bounds", "1.sequences.positions", "1.sequences.targets", "1.sequences.owners"}
    assert found["1.sequences.targets"].tolist() == [5]


def test_long_lists_of_rows_are_cut_in_the_message_only(tmp_path: Path) -> None:
    with pytest.raises(NumericError, match=r"train.jsonl:15 and 4 more; .*bad_step-7 has rows and batches"):
        demand_finite("loss", math.nan, suspects(tmp_path, count=9))
    assert len(json.loads((tmp_path / "bad_step-7" / "rows.json").read_text())["rows"]) == 9


def test_bad_steps_are_left_out_up_to_the_last_that_is_borne(tmp_path: Path) -> None:
    told: list[str] = []
    policy = BadSteps(3, told.append)
    assert policy.allows({"loss": 1.0, "gradient norm": 2.0}, 2, suspects(tmp_path))
    assert not policy.allows({"loss": 1.0, "gradient norm": math.inf}, 0, suspects(tmp_path))
    assert not policy.allows({"loss": math.nan, "gradient norm": math.inf}, 1, suspects(tmp_path))
    assert told == [
        "warning: step 7: the gradient norm is inf; the step was not applied (1 in a row, 3 end the run). "
        "Rows: train.jsonl:11, train.jsonl:12",
        "warning: step 7: the loss is nan; the step was not applied (2 in a row, 3 end the run). Rows: train.jsonl:11, train.jsonl:12"]
    with pytest.raises(NumericError, match=r"^step 7: the loss \(3 steps in a row\) is nan; the step was not applied"):
        policy.allows({"loss": math.nan}, 2, suspects(tmp_path))
    with pytest.raises(NumericError, match=r"^step 7: the loss is inf;"):
        BadSteps(1, told.append).allows({"loss": math.inf}, 0, suspects(tmp_path))


def test_evidence_is_kept_of_some_steps_only(tmp_path: Path) -> None:
    """A run that passes over thousands of steps must not fill the disk with them."""
    for step in range(EVIDENCE_KEPT + 3):
        BadSteps(99, print).allows({"loss": math.nan}, 0, dataclasses.replace(suspects(tmp_path), step=step))
    assert len(list(tmp_path.glob("bad_step-*"))) == EVIDENCE_KEPT


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
    assert first_loss_note(0.01, 1000) is None
    assert first_loss_note(0.0, 1000) == (
        "the first loss is 0: there is nothing left to learn. Are the answers in the prompts, or was the model trained on these rows?")
    assert first_loss_note(7.91, 1000) == (
        "the first loss is 7.91, far above 6.91 = ln(1000), that of guessing at random: "
        "do the weights, the tokenizer and the template belong together?")

"""What two directories of runs differ in. Oracle: the differences that were put in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tunewright.selftest.compare import differences, first_difference, tensor_difference


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """The same run twice, with checkpoints 1 and 2, but for its times, its id and who held the lock."""
    for name, took in (("one", 1.0), ("other", 2.0)):
        for step in (1, 2):
            folder = tmp_path / name / f"checkpoint-{step}"
            folder.mkdir(parents=True)
            save_file({"a": torch.arange(6.0), "b": torch.ones(2, 2, dtype=torch.bfloat16)}, folder / "model.safetensors")
            (folder / "train_state.json").write_text(json.dumps(
                {"global_step": step, "elapsed_s": took, "log_history": [{"loss": 0.5, "eval_runtime": took}]}))
            (folder / "manifest.json").write_text(json.dumps({"run_id": name, "step": step, "files": [took], "digest": name}))
            (folder / "trainer_log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in ({"loss": 1.0}, {"elapsed_time": took})))
        for file in (".tunewright.lock", "run.json", "README.md"):
            (tmp_path / name / file).write_text(name)
        save_file({"a": torch.arange(6.0)}, tmp_path / name / "model.safetensors")
    return tmp_path / "one", tmp_path / "other"


def test_the_same_run(pair: tuple[Path, Path]) -> None:
    assert differences(*pair) == []
    assert first_difference(*pair) == ""


def test_numbers_of_tensors(pair: tuple[Path, Path]) -> None:
    """Two of six numbers moved, at most by a half; where it was first, is told; a log that differs too tells less."""
    moved = torch.arange(6.0)
    moved[1] += 0.25
    moved[5] -= 0.5
    for step in (1, 2):
        file = pair[1] / f"checkpoint-{step}" / "model.safetensors"
        save_file({"a": moved, "b": torch.ones(2, 2, dtype=torch.bfloat16)}, file)
    (pair[1] / "checkpoint-1" / "a.json").write_text("{}")
    told = "model.safetensors: a: 2 of 6 numbers differ, by up to 0.5"
    assert differences(*pair) == [f"checkpoint-2/{told}"]
    assert first_difference(*pair) == f"step 1: {told}; 2 differences"


def test_values_of_json(pair: tuple[Path, Path]) -> None:
    state = {"global_step": 3, "elapsed_s": 1.0, "log_history": [{"loss": 0.25}]}
    (pair[1] / "checkpoint-2" / "train_state.json").write_text(json.dumps(state))
    assert differences(*pair) == ["checkpoint-2/train_state.json: global_step: 3 instead of 2 and 1 more"]


def test_files_and_tensors_that_are_not_there(pair: tuple[Path, Path]) -> None:
    (pair[0] / "checkpoint-2" / "stage.json").write_text("{}")
    (pair[1] / "rollouts.jsonl").write_text("{}\n")
    save_file({"c": torch.arange(6.0)}, pair[1] / "model.safetensors")
    assert differences(*pair) == [
        "checkpoint-2/stage.json: missing", "model.safetensors: a: missing", "model.safetensors: c: there", "rollouts.jsonl: there"]
    shutil.rmtree(pair[1] / "checkpoint-2")
    assert differences(*pair) == ["the last checkpoint is of step 1 instead of 2"]


def test_other_bytes(pair: tuple[Path, Path]) -> None:
    save_file({"a": torch.arange(6.0)}, pair[1] / "model.safetensors", metadata={"format": "pt"})
    (pair[0] / "chat_template.jinja").write_text("a")
    (pair[1] / "chat_template.jinja").write_text("b")
    assert differences(*pair) == ["chat_template.jinja: other bytes", "model.safetensors: the same tensors with another header"]


def test_every_bit_of_a_number_counts() -> None:
    """-0 is not 0; a number that is none is the same as itself; empty and scalar tensors; types and shapes."""
    zero, nan = torch.zeros(2), torch.tensor([float("nan"), 1.0])
    assert tensor_difference(zero, -zero) == "2 of 2 numbers differ, by up to 0"
    assert tensor_difference(nan, nan.clone()) == ""
    assert tensor_difference(torch.zeros(0, 3), torch.zeros(0, 3)) == ""
    assert tensor_difference(torch.tensor(1), torch.tensor(3)) == "1 of 1 numbers differ, by up to 2"
    assert tensor_difference(zero, zero.half()) == "float16 [2] instead of float32 [2]"
    assert tensor_difference(zero, zero[None]) == "float32 [1, 2] instead of float32 [2]"

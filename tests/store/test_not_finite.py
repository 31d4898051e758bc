"""A loss or gradient that is not finite ends the run before the step is applied.

Oracle: the same run without the bad number. The state that the last checkpoint holds, and what a second run makes of it, must be
those of the run that never met one.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.engine.resuming import Workspace, results
from tests.harness.killing import Case, Server
from tests.store.running import finished, run
from tunewright.engine.checkpoint import damage, read_checkpoint

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("where", "value", "quantity"), [
    ("loss", "nan", "loss"), ("loss", "inf", "loss"), ("gradient", "nan", "gradient norm"), ("gradient", "inf", "gradient norm")])
def test_a_step_that_is_not_finite(
    kill_server: Server, workspace: Workspace, tmp_path: Path, where: str, value: str, quantity: str
) -> None:
    """At step 8 of 12: exit 5, rows named, checkpoint 6 as it is in a straight run, no such number in any log; then to the end."""
    straight = finished(kill_server, workspace, tmp_path / "straight", lora_dropout=0.2, save_total_limit=9, logging_steps=1)
    output_dir = tmp_path / "bad"
    settings = workspace.settings(output_dir, lora_dropout=0.2, save_total_limit=9, logging_steps=1)
    outcome = kill_server.run(Case("train_to_a_number_that_is_not_finite", {
        "settings": settings, "step": 8, "value": value, "where": where}, str(output_dir)))
    assert outcome.code == 5, outcome.output
    error = next(line for line in outcome.output.splitlines() if line.startswith("error:"))
    assert error.startswith(f"error: step 8: the {quantity} is {value}; the step was not applied. Rows: {workspace.path / 'rows.jsonl'}:")
    evidence = json.loads((output_dir / "bad_batch-8.json").read_text())
    assert (evidence["step"], evidence["quantity"], evidence["value"]) == (8, quantity, value)
    assert len(evidence["rows"]) == 4
    check_untouched(output_dir, straight)
    again = run(kill_server, workspace, output_dir, lora_dropout=0.2, save_total_limit=9, logging_steps=1)
    assert again.code == 0, again.output
    assert results(output_dir) == results(straight)


def check_untouched(output_dir: Path, straight: Path) -> None:
    """Checkpoints 3 and 6 bit for bit those of the straight run (times aside); the log ends at step 7, all of it finite."""
    assert sorted(path.name for path in output_dir.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-6"]
    for name in ("checkpoint-3", "checkpoint-6"):
        checkpoint = read_checkpoint(output_dir / name)
        assert checkpoint is not None and damage(checkpoint) == []
        for file in ("adapter_model.safetensors", "optimizer.safetensors", "optimizer.json", "scheduler.json", "random-0.json"):
            assert (output_dir / name / file).read_bytes() == (straight / name / file).read_bytes(), (name, file)
    entries = [json.loads(line) for line in (output_dir / "trainer_log.jsonl").read_text().splitlines()]
    right = [json.loads(line) for line in (straight / "trainer_log.jsonl").read_text().splitlines()]
    assert [entry["current_steps"] for entry in entries] == list(range(1, 8))
    assert [entry["loss"] for entry in entries] == [entry["loss"] for entry in right[:7]]
    assert all(math.isfinite(entry["loss"]) and entry["loss"] > 0 for entry in entries)


def test_the_bad_step_comes_again(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    """Run a second time with the same bad number, the run stops at the same step again: nothing steals past it."""
    settings = workspace.settings(tmp_path / "bad")
    for taken in (8, 2):  # the second run starts from checkpoint 6
        outcome = kill_server.run(Case("train_to_a_number_that_is_not_finite", {
            "settings": settings, "step": taken, "value": "nan", "where": "loss"}, settings["output_dir"]))
        assert outcome.code == 5 and "error: step 8: the loss is nan" in outcome.output, outcome.output

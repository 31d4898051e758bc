"""Effects of the options on memory: what is recomputed, when, and how large batches are. Runs of the tiny model in this process.

Oracles: a count of forward passes; runs that are configured as the decision should come out; the messages. How much memory there is, and
that it runs out, is told by stand-ins at the process's border.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaAttention

from tests.effects.engine_runs import losses, run, weights
from tunewright.errors import OutOfMemoryError
from tunewright.planning import machine
from tunewright.selftest.workspace import Workspace
from tunewright.stages.sft import SupervisedFineTuning

SHORT: dict[str, Any] = {"max_steps": 2, "save_steps": 2, "logging_steps": 1, "resume_from_checkpoint": "none"}


def forwards(workspace: Workspace, output_dir: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> int:
    """How many times attention ran in training: the probes of kernels run in evaluation mode."""
    calls, own = [0], LlamaAttention.forward

    def counted(self: LlamaAttention, *arguments: Any, **settings: Any) -> Any:
        calls[0] += self.training
        return own(self, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(LlamaAttention, "forward", counted)
        patch.setattr("tunewright.planning.decide._estimated", unplanned)
        run(workspace, output_dir, **SHORT, **changes)
    return calls[0]


def unplanned(run: Any, *_: Any) -> dict[str, Any]:
    """No estimate, which would run the model too."""
    return {"recomputes": run.precision.gradient_checkpointing, "rows": run.batching.per_device_train_batch_size, "lines": []}


@pytest.mark.effect("recompute_modules")
def test_only_the_modules_that_are_named_run_again(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of one micro-batch through two layers: 4 forward passes, and one more for each recomputed layer and step."""
    on = {"gradient_checkpointing": True}
    counts = [forwards(workspace, tmp_path / str(number), monkeypatch, **changes) for number, changes in enumerate((
        {}, on, on | {"recompute_modules": "model.layers.{0}"}, on | {"recompute_modules": "model.layers.{0-1}.mlp"}))]
    assert counts == [4, 8, 6, 4]
    first, *others = (weights(tmp_path / str(number)) for number in range(4))
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)


@pytest.mark.effect("gradient_checkpointing_auto")
@pytest.mark.parametrize(("free", "is_on"), [(1 << 40, False), (1 << 10, True)])
def test_auto_recomputes_only_where_memory_is_short(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], free: int, is_on: bool,
) -> None:
    monkeypatch.setattr(machine, "free_bytes", lambda: free)
    monkeypatch.setattr(machine, "resident_bytes", lambda: 0)
    run(workspace, tmp_path, gradient_checkpointing="auto", **SHORT)
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("gradient_checkpointing: auto")]
    assert len(told) == 1 and f"auto is {'on' if is_on else 'off'}: " in told[0]
    recorded = json.loads((tmp_path / "checkpoint-2" / "manifest.json").read_text())["settings"]
    assert recorded["gradient_checkpointing"] is is_on


def test_a_resumed_run_takes_the_same_decision(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun where memory is short, gone on with where there is plenty: still recomputed, and the settings agree."""
    monkeypatch.setattr(machine, "free_bytes", lambda: 1 << 10)
    monkeypatch.setattr(machine, "resident_bytes", lambda: 0)
    settings = {"gradient_checkpointing": "auto", "max_steps": 4, "save_steps": 2, "save_total_limit": 5}
    run(workspace, tmp_path, **settings)
    whole = weights(tmp_path)
    shutil.rmtree(tmp_path / "checkpoint-4")
    monkeypatch.setattr(machine, "free_bytes", lambda: 1 << 40)
    run(workspace, tmp_path, **settings)
    recorded = json.loads((tmp_path / "checkpoint-4" / "manifest.json").read_text())["settings"]
    assert recorded["gradient_checkpointing"] is True
    assert all(torch.equal(weights(tmp_path)[name], one) for name, one in whole.items())


class Scarce:
    """Memory for so many rows at a time."""

    def __init__(self, patch: pytest.MonkeyPatch, rows: int) -> None:
        own = SupervisedFineTuning.loss

        def loss(stage: Any, models: Any, batch: Any) -> Any:
            if len(batch.sample_ids) > rows:
                raise torch.OutOfMemoryError(f"no memory for {len(batch.sample_ids)} rows")
            return own(stage, models, batch)

        patch.setattr(SupervisedFineTuning, "loss", loss)


@pytest.mark.effect("micro_batch_tokens")
@pytest.mark.parametrize("padding_free", [True, False])
def test_micro_batches_of_so_many_tokens(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, padding_free: bool,
) -> None:
    """Steps of 8 rows of up to 39 tokens, 80 of them together: no micro-batch has more, padding included; each step has the samples of the
    run without, and logs its loss to float32's rounding."""
    seen: list[tuple[tuple[int, ...], int]] = []
    own = SupervisedFineTuning.loss

    def loss(stage: Any, models: Any, batch: Any) -> Any:
        seen.append((batch.sample_ids, batch.input_ids.numel()))
        return own(stage, models, batch)

    monkeypatch.setattr(SupervisedFineTuning, "loss", loss)
    settings = {"per_device_train_batch_size": 8, "padding_free": padding_free, "slow_paths": "prefix", **SHORT}
    run(workspace, tmp_path / "rows", **settings)
    (first, _), (second, _) = seen
    assert len(first) == len(second) == 8
    seen.clear()
    run(workspace, tmp_path / "tokens", micro_batch_tokens=80, **settings)
    assert len(seen) > 4 and all(positions <= 80 for _, positions in seen)
    assert [one for samples, _ in seen for one in samples] == [*first, *second]
    assert losses(tmp_path / "tokens") == pytest.approx(losses(tmp_path / "rows"), rel=1e-5)


@pytest.mark.effect("auto_find_batch_size")
def test_running_out_of_memory_halves_the_batch(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for 2 rows, batches of 8: the run is, bit for bit, the one that was configured with 2 x 4; and 8 x 1 to float32's rounding."""
    run(workspace, tmp_path / "whole", per_device_train_batch_size=8, **SHORT)
    run(workspace, tmp_path / "smaller", per_device_train_batch_size=2, gradient_accumulation_steps=4, **SHORT)
    with monkeypatch.context() as patch:
        Scarce(patch, 2)
        with pytest.raises(OutOfMemoryError, match="out of memory on a batch of 8 rows"):
            run(workspace, tmp_path / "refused", per_device_train_batch_size=8, **SHORT)
        run(workspace, tmp_path / "found", per_device_train_batch_size=8, auto_find_batch_size=True, **SHORT)
    assert losses(tmp_path / "found") == losses(tmp_path / "smaller")
    assert losses(tmp_path / "found") == pytest.approx(losses(tmp_path / "whole"), rel=1e-6)
    found, smaller = weights(tmp_path / "found"), weights(tmp_path / "smaller")
    assert all(torch.equal(found[name], smaller[name]) for name in smaller)
    recorded = json.loads((tmp_path / "found" / "checkpoint-2" / "manifest.json").read_text())["settings"]
    assert (recorded["per_device_train_batch_size"], recorded["gradient_accumulation_steps"]) == (2, 4)


def test_a_run_that_found_its_size_goes_on_with_it(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"per_device_train_batch_size": 8, "auto_find_batch_size": True, "max_steps": 4, "save_steps": 2, "save_total_limit": 5,
                "num_train_epochs": 2}
    with monkeypatch.context() as patch:
        Scarce(patch, 3)
        run(workspace, tmp_path, **settings)
    whole = weights(tmp_path)
    shutil.rmtree(tmp_path / "checkpoint-4")
    run(workspace, tmp_path, **settings)  # with memory for 8 rows now
    assert all(torch.equal(weights(tmp_path)[name], one) for name, one in whole.items())


def test_one_row_that_does_not_fit_ends_the_run(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Scarce(monkeypatch, 0)
    with pytest.raises(OutOfMemoryError, match="out of memory on a batch of 1 rows"):
        run(workspace, tmp_path, per_device_train_batch_size=8, auto_find_batch_size=True, **SHORT)


def test_the_planner_chooses_the_first_size(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:
    """With memory for nothing it is one row, before anything has failed."""
    monkeypatch.setattr(machine, "free_bytes", lambda: 1 << 10)
    monkeypatch.setattr(machine, "resident_bytes", lambda: 0)
    run(workspace, tmp_path, per_device_train_batch_size=8, auto_find_batch_size=True, **SHORT)
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("auto_find_batch_size")]
    assert told == ["auto_find_batch_size: 1 rows instead of 8 in a batch, and 8 times as many batches"]


def test_a_run_goes_on_where_planning_fails(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:
    """It says so in one line, and leaves recomputation off."""
    def failing(*_: Any) -> Any:
        raise RuntimeError("contents are\nwanted")

    monkeypatch.setattr("tunewright.planning.estimate.simulate", failing)
    run(workspace, tmp_path, gradient_checkpointing="auto", **SHORT)
    lines = capfd.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith(("estimate", "gradient_checkpointing: auto"))] == [
        "estimate: none: the model asks for numbers where only shapes are known: RuntimeError: contents are wanted",
        "gradient_checkpointing: auto is off: there is no estimate"]
    assert len(losses(tmp_path)) == 2

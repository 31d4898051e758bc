"""Batches, precision, checkpoints, evaluation and logs: each option changes what its test looks at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn
from torch.utils.data import DataLoader

from tests.effects.engine_runs import config, history, losses, run
from tunewright.dialects.read import read_config
from tunewright.engine import assemble, batches
from tunewright.errors import ConfigError, InputError
from tunewright.runtime import Ranks
from tunewright.selftest.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """accelerate keeps the number format of the first run of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def steps(output_dir: Path) -> int:
    found: int = json.loads((output_dir / "trainer_state.json").read_text())["max_steps"]
    return found


def saved(output_dir: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in output_dir.glob("checkpoint-*"))


@pytest.mark.effect("per_device_train_batch_size", "gradient_accumulation_steps")
def test_rows_of_a_step(workspace: Workspace, tmp_path: Path) -> None:
    """22 rows: six steps of 4, three of 8, two of 8 x 2. Two micro-batches of 4 are the same step as one of 8."""
    for name, per_device, accumulation in (("a", 4, 1), ("b", 8, 1), ("c", 8, 2), ("d", 4, 2)):
        run(workspace, tmp_path / name, num_train_epochs=1, per_device_train_batch_size=per_device,
            gradient_accumulation_steps=accumulation, logging_steps=1)
    assert [steps(tmp_path / name) for name in "abcd"] == [6, 3, 2, 3]
    assert losses(tmp_path / "b") == pytest.approx(losses(tmp_path / "d"), rel=1e-5)


@pytest.mark.effect("per_device_eval_batch_size")
def test_rows_of_an_evaluation_batch(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight held-out rows are two batches of 4 or eight of 1: counted where batches are made."""
    from tunewright.engine import evaluate

    counts = []
    plain = evaluate.every_batch

    def counted(*arguments: object) -> Iterator[object]:
        batches = list(plain(*arguments))  # type: ignore[arg-type]
        counts.append(len(batches))
        yield from batches

    monkeypatch.setattr(evaluate, "every_batch", counted)
    for size in (4, 1):
        run(workspace, tmp_path / str(size), max_steps=1, val_size=8, do_eval=True, per_device_eval_batch_size=size)
    assert counts == [2, 8]


@pytest.mark.effect("group_by_length")
def test_rows_of_like_length_share_a_batch(workspace: Workspace, tmp_path: Path) -> None:
    """The padding of an epoch is less, by the lengths of the rows in the order that the batches take them."""
    from tunewright.data.sampling import epoch_order, length_grouped_order

    run(workspace, tmp_path / "a", num_train_epochs=1, logging_steps=1)
    run(workspace, tmp_path / "b", num_train_epochs=1, logging_steps=1, group_by_length=True)
    assert losses(tmp_path / "a") != losses(tmp_path / "b")
    lengths = torch.randint(1, 60, (64,), generator=torch.Generator().manual_seed(0)).numpy()

    def padding(order: object) -> int:
        batches = lengths[order].reshape(-1, 4)  # type: ignore[index]
        return int((batches.max(1, keepdims=True) - batches).sum())

    assert padding(length_grouped_order(lengths, 4, 0, 0)) < padding(epoch_order(64, 0, 0)) / 2


@pytest.mark.effect("sortish_sampler")
def test_batches_grow_shorter(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """22 rows are one megabatch: the longest row of each batch is no longer than that of the one before. In random order it is."""
    from tunewright.data import collate

    longest: list[int] = []
    plain = collate.collate_padded

    def seen(examples: object, **settings: object) -> object:
        batch = plain(examples, **settings)  # type: ignore[arg-type]
        longest.append(batch.input_ids.shape[1])
        return batch

    monkeypatch.setattr(assemble, "collate_padded", seen)
    for sortish in (False, True):
        longest.clear()
        run(workspace, tmp_path / str(sortish), num_train_epochs=1, per_device_train_batch_size=2, sortish_sampler=sortish,
            padding_free=False)
        assert len(longest) == 11
        assert (longest == sorted(longest, reverse=True)) == sortish


@pytest.mark.effect("dataloader_num_workers", "dataloader_timeout_s")
def test_workers_and_how_long_they_are_waited_for(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own loader has that many processes and that timeout; the batches are the same."""
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(batches, "DataLoader", lambda *given, **options: made.append(options) or DataLoader(*given, **options))
    for workers, timeout in ((0, 600), (2, 7)):
        run(workspace, tmp_path / str(workers), max_steps=2, logging_steps=1, dataloader_num_workers=workers, dataloader_timeout_s=timeout)
        assert (made[-1]["num_workers"], made[-1]["timeout"]) == (workers, timeout if workers else 0)
    assert losses(tmp_path / "0") == losses(tmp_path / "2")


@pytest.mark.effect("bf16")
def test_products_in_bfloat16(workspace: Workspace, tmp_path: Path) -> None:
    """Losses differ from float32's by rounding: more than nothing, less than a hundredth."""
    for name, bf16 in (("a", False), ("b", True)):
        AcceleratorState._reset_state(reset_partial_state=True)
        run(workspace, tmp_path / name, max_steps=2, logging_steps=1, bf16=bf16)
    a, b = losses(tmp_path / "a"), losses(tmp_path / "b")
    assert a != b and a == pytest.approx(b, rel=0.01)


@pytest.mark.effect("fp16")
def test_float16_needs_an_accelerator(workspace: Workspace, tmp_path: Path) -> None:
    """Without one the run is refused before anything is written."""
    if torch.accelerator.is_available():
        pytest.skip("there is an accelerator")
    with pytest.raises((ConfigError, InputError), match="fp16"):
        run(workspace, tmp_path / "out", fp16=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.effect("gradient_checkpointing", "use_reentrant_gc")
def test_activations_are_computed_twice(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every layer runs a second time in the backward pass; the losses are the same. torch's reentrant form is the one whose first
    pass records no gradients."""
    from transformers.models.llama.modeling_llama import LlamaMLP

    calls: list[bool] = []
    plain = LlamaMLP.forward

    def watched(self: nn.Module, states: torch.Tensor) -> torch.Tensor:
        if self.training and not states.is_meta:  # neither a proof's nor the planner's
            calls.append(torch.is_grad_enabled())
        return plain(self, states)

    monkeypatch.setattr(LlamaMLP, "forward", watched)
    counted = {}
    for name, changes in {"a": {}, "b": {"gradient_checkpointing": True},
                          "c": {"gradient_checkpointing": True, "use_reentrant_gc": True}}.items():
        calls.clear()
        run(workspace, tmp_path / name, max_steps=2, logging_steps=1, slow_paths="mlp", **changes)
        counted[name] = len(calls), calls.count(False)
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "a"), rel=1e-6)
    assert counted == {"a": (4, 0), "b": (8, 0), "c": (8, 4)}  # two layers, two steps


@pytest.mark.effect("padding_free")
def test_rows_lie_end_to_end(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four rows side by side, or one of all their tokens; the losses agree to the rounding of float32."""
    from transformers.models.llama.modeling_llama import LlamaMLP

    rows: set[int] = set()
    plain = LlamaMLP.forward

    def watched(self: nn.Module, states: torch.Tensor) -> torch.Tensor:
        if self.training and not states.is_meta:  # neither a proof's nor the planner's
            rows.add(states.shape[0])
        return plain(self, states)

    monkeypatch.setattr(LlamaMLP, "forward", watched)
    for flat, expected in ((False, {4}), (True, {1})):
        rows.clear()
        run(workspace, tmp_path / str(flat), max_steps=2, logging_steps=1, slow_paths="mlp", padding_free=flat)
        assert rows == expected
    assert losses(tmp_path / "True") == pytest.approx(losses(tmp_path / "False"), rel=1e-5)


@pytest.mark.effect("ddp_timeout", "ddp_backend")
def test_ranks_meet_over_this_library_within_this_time(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch is asked for when a rank of two joins; a library that this torch lacks is an error of its own."""
    from datetime import timedelta

    from torch import distributed

    class Joined(Exception):
        """Raised where the rank would wait for the other."""

    asked: list[tuple[str, timedelta]] = []

    def join(backend: str, timeout: timedelta, **_: object) -> None:
        asked.append((backend, timeout))
        raise Joined

    monkeypatch.setattr(distributed, "init_process_group", join)
    for name in ("TUNEWRIGHT_LISTEN_FD", "TUNEWRIGHT_PARENT_FD"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                        "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    for changes in ({}, {"ddp_timeout": 60, "ddp_backend": "mpi"}):
        with pytest.raises(Joined):
            run(workspace, tmp_path, **changes)
    assert asked == [("gloo", timedelta(seconds=1800)), ("mpi", timedelta(seconds=60))]


@pytest.mark.effect("ddp_find_unused_parameters")
def test_unused_parameters_are_looked_for(workspace: Workspace, tmp_path: Path) -> None:
    """What accelerate hands to DistributedDataParallel."""
    for given, expected in ((None, False), (True, True)):
        changes = {} if given is None else {"ddp_find_unused_parameters": given}
        accelerator = assemble.accelerator_for(config(workspace, tmp_path, **changes), Ranks())
        handler = accelerator.ddp_handler
        assert (handler is not None and handler.find_unused_parameters) == expected


@pytest.mark.effect("save_strategy", "save_steps", "save_total_limit")
def test_when_checkpoints_are_saved(workspace: Workspace, tmp_path: Path) -> None:
    """Twelve steps in two epochs: every fifth, every epoch, or none; every second, of which the last three are kept."""
    for strategy in ("steps", "epoch", "no"):
        run(workspace, tmp_path / strategy, save_strategy=strategy, save_steps=5, save_total_limit=9)
    assert [saved(tmp_path / name) for name in ("steps", "epoch", "no")] == [[5, 10, 12], [6, 12], []]
    run(workspace, tmp_path / "few", save_steps=2, save_total_limit=3)
    assert saved(tmp_path / "few") == [8, 10, 12]


@pytest.mark.effect("eval_delay")
def test_evaluations_begin_later(workspace: Workspace, tmp_path: Path) -> None:
    """Every third of twelve steps, but not before the seventh."""
    for name, delay in (("a", 0), ("b", 7)):
        run(workspace, tmp_path / name, eval_strategy="steps", eval_steps=3, val_size=1, eval_delay=delay, num_train_epochs=2)
    at = [[entry["step"] for entry in history(tmp_path / name) if "eval_loss" in entry] for name in "ab"]
    assert at[1] == [step for step in at[0] if step >= 7] and at[0][0] == 3


@pytest.mark.effect("metric_for_best_model", "greater_is_better", "compute_accuracy")
def test_which_evaluation_is_best(workspace: Workspace, tmp_path: Path) -> None:
    """The best step is that of the least loss, or of the greatest or least accuracy, found in the log by hand. Evaluated are the rows
    that are learnt, so that accuracy changes."""
    common = {"eval_strategy": "steps", "eval_steps": 4, "save_steps": 4, "eval_dataset": workspace.path / "rows.jsonl",
              "load_best_model_at_end": True, "save_total_limit": 9, "num_train_epochs": 4, "learning_rate": 0.02,
              "finetuning_type": "full"}
    accuracy = {"metric_for_best_model": "accuracy", "compute_accuracy": True}
    choices = {"loss": ({}, "eval_loss", min), "accuracy": (accuracy, "eval_accuracy", max),
               "worst": ({**accuracy, "greater_is_better": False}, "eval_accuracy", min)}
    for name, (changes, metric, best) in choices.items():
        run(workspace, tmp_path / name, **common, **changes)
        entries = [entry for entry in history(tmp_path / name) if metric in entry]
        chosen = json.loads((tmp_path / name / "trainer_state.json").read_text())["best_metric"]
        assert chosen == best(entry[metric] for entry in entries)
        assert len({entry[metric] for entry in entries}) > 2
    assert not any("eval_accuracy" in entry for entry in history(tmp_path / "loss"))


@pytest.mark.effect("logging_strategy", "logging_steps")
def test_when_losses_are_logged(workspace: Workspace, tmp_path: Path) -> None:
    """Twelve steps in two epochs: every fifth step, every epoch, or never."""
    for strategy in ("steps", "epoch", "no"):
        run(workspace, tmp_path / strategy, logging_strategy=strategy, logging_steps=5)
    at = [[entry["step"] for entry in history(tmp_path / name) if "loss" in entry] for name in ("steps", "epoch", "no")]
    assert at == [[5, 10, 12], [6, 12], []]  # what is left at the end is logged too


@pytest.mark.effect("logging_dir")
def test_where_tensorboard_writes(workspace: Workspace, tmp_path: Path) -> None:
    run(workspace, tmp_path / "a", max_steps=2, report_to="tensorboard", logging_dir=tmp_path / "board")
    assert list((tmp_path / "board").rglob("events.out.tfevents.*")) and not (tmp_path / "a" / "runs").exists()


@pytest.mark.effect("disable_tqdm")
def test_progress_display(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened for the main process unless it is switched off."""
    from tunewright.engine import training

    opened: list[bool] = []
    plain = training.open_display

    def watched(*, disabled: bool, is_main: bool) -> object:
        opened.append(disabled)
        return plain(disabled=True, is_main=is_main)

    monkeypatch.setattr(training, "open_display", watched)
    for off in (True, False):
        run(workspace, tmp_path / str(off), max_steps=1, disable_tqdm=off)
    assert opened == [True, False]


@pytest.mark.effect("export_device")
def test_where_the_merge_is_computed(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cpu` whatever the machine has; `auto` the accelerator where there is one. Whether it has one, and the move there, are the
    borders that are simulated."""
    from transformers import PreTrainedModel

    from tunewright.export.merge import export

    moved: list[str] = []
    plain = PreTrainedModel.to

    def to(self: PreTrainedModel, where: object, *arguments: object, **settings: object) -> PreTrainedModel:
        if isinstance(where, torch.device):
            moved.append(where.type)
            return self
        return plain(self, where, *arguments, **settings)

    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("meta"))
    monkeypatch.setattr(PreTrainedModel, "to", to)
    for device in ("cpu", "auto"):
        words = [f"model_name_or_path={workspace.path / 'model'}", f"export_dir={tmp_path / device}", f"export_device={device}"]
        export(read_config(words, purpose="export").config)
    assert moved == ["cpu", "meta"]

"""Killed at any file operation, or at any step, a run goes on to the same end, bit for bit.

Oracle: the same run, never interrupted. Compared are the final weights, and of the last checkpoint optimizer, schedule, random
numbers, position and every logged loss.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.resuming import Workspace, killed_and_resumed, results
from tests.harness.killing import KILLED, Case, Server, server

pytestmark = pytest.mark.slow
PARTS = 4
"""The enumeration is cut into so many tests, so that they can run side by side."""

SETUPS: dict[str, dict[str, Any]] = {
    "plain": {"finetuning_type": "full"},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "accumulation, uneven tail": {"gradient_accumulation_steps": 4},
    "LoRA with dropout": {"lora_dropout": 0.2},
    "DoRA, LoRA+": {"use_dora": True, "loraplus_lr_ratio": 4},
    "PiSSA": {"pissa_init": True, "pissa_iter": 4},
    "length grouping": {"group_by_length": True},
    "packing": {"packing": True, "cutoff_len": 64, "per_device_train_batch_size": 2},
    "padding-free": {"padding_free": True},
    "two data-loader workers": {"dataloader_num_workers": 2},
    "evaluation in between, best model": {
        "eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True, "val_size": 4, "compute_accuracy": True},
    "Adafactor": {"optim": "adafactor"},
    "gradient checkpointing": {"gradient_checkpointing": True},
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.make(tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def kill_server() -> Iterator[Server]:
    with server() as running:
        yield running


def straight(kill_server: Server, scenario: str, settings: dict[str, str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The uninterrupted run, and its file operations."""
    outcome = kill_server.run(Case(scenario, {"settings": settings}, settings["output_dir"], "count"))
    assert outcome.code == 0, outcome.output
    return results(Path(settings["output_dir"])), outcome.operations


def check_points(kill_server: Server, scenario: str, workspace: Workspace, folder: Path, chosen: Any, **changes: Any) -> int:
    """Kill at every chosen operation, before it or, for writes, in its middle; returns how many were killed."""
    expected, operations = straight(kill_server, scenario, workspace.settings(folder / "straight", **changes))
    killed = 0
    for number, operation in enumerate(operations, start=1):
        if not chosen(number, operations):
            continue
        output_dir = folder / f"killed-{number}"
        mode = "tear" if operation.startswith("write") and number % 2 else "kill"
        first, second = killed_and_resumed(kill_server, scenario, workspace.settings(output_dir, **changes), mode, number)
        killed += first.code == KILLED
        assert second.code == 0, (operation, second.output)
        assert results(output_dir) == expected, (number, operation)
        shutil.rmtree(output_dir)
    return killed


@pytest.mark.slow(minutes=2)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_file_operation_of_a_run(kill_server: Server, workspace: Workspace, tmp_path: Path, part: int) -> None:
    """All operations of saving, rotating, logging and the final save, LoRA with dropout on one rank."""
    killed = check_points(
        kill_server, "train", workspace, tmp_path, lambda number, _: number % PARTS == part, lora_dropout=0.2)
    assert killed >= 60


@pytest.mark.slow(minutes=1.5)
@pytest.mark.parametrize("part", range(2))
def test_file_operations_of_saves_on_two_ranks(kill_server: Server, workspace: Workspace, tmp_path: Path, part: int) -> None:
    """Every third from the first file of the second checkpoint to the last removal of one; the other rank ends by itself."""

    def in_saves(number: int, operations: tuple[str, ...]) -> bool:
        first = next(place for place, one in enumerate(operations, start=1) if "/.staging-6" in one)
        last = max(place for place, one in enumerate(operations, start=1) if "/checkpoint-6" in one) + 3
        return first <= number <= last and number % 6 == 3 * part

    killed = check_points(
        kill_server, "train_on_two_ranks", workspace, tmp_path, in_saves, per_device_train_batch_size=2, ddp_timeout=10)
    assert killed >= 20


@pytest.mark.parametrize("name", SETUPS)
def test_steps_and_a_sample_of_operations_of_each_setup(kill_server: Server, workspace: Workspace, tmp_path: Path, name: str) -> None:
    """Killed inside steps 2, 5 and 10 (before any checkpoint, between two, in the second epoch), and at every 41st operation."""
    changes = SETUPS[name]
    expected, _ = straight(kill_server, "train", workspace.settings(tmp_path / "straight", **changes))
    for step in (2, 5, 10):
        settings = workspace.settings(tmp_path / f"step-{step}", **changes)
        first = kill_server.run(Case("train", {"settings": settings, "stop_after": step}, settings["output_dir"]))
        assert first.code in (0, KILLED), first.output
        second = kill_server.run(Case("train", {"settings": settings}, settings["output_dir"]))
        assert second.code == 0, second.output
        assert results(tmp_path / f"step-{step}") == expected
    check_points(kill_server, "train", workspace, tmp_path / "points", lambda number, _: number % 41 == 0, **changes)


def test_two_ranks_train_what_one_does(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    """Identity: batches of 2 on two ranks are batches of 4 on one; every logged loss and gradient norm to 1e-5, LoRA in float32."""
    one, _ = straight(kill_server, "train", workspace.settings(tmp_path / "one", logging_steps=1))
    two, _ = straight(kill_server, "train_on_two_ranks", workspace.settings(
        tmp_path / "two", logging_steps=1, per_device_train_batch_size=2))
    assert len(one["state"]["log_history"]) == 12
    for ours, theirs in zip(one["state"]["log_history"], two["state"]["log_history"], strict=True):
        assert theirs == pytest.approx(ours, rel=1e-5)


def test_steps_on_two_ranks(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    """Rank 0 killed inside a step: the other rank ends, and both go on from the last checkpoint."""
    changes = {"per_device_train_batch_size": 2, "lora_dropout": 0.2, "ddp_timeout": 10}
    expected, _ = straight(kill_server, "train_on_two_ranks", workspace.settings(tmp_path / "straight", **changes))
    for step in (2, 5, 10):
        settings = workspace.settings(tmp_path / f"step-{step}", **changes)
        first = kill_server.run(Case("train_on_two_ranks", {"settings": settings, "stop_after": step}, settings["output_dir"]))
        assert first.code == KILLED, first.output
        second = kill_server.run(Case("train_on_two_ranks", {"settings": settings}, settings["output_dir"]))
        assert second.code == 0, second.output
        assert results(tmp_path / f"step-{step}") == expected

"""Killed at any file operation, or at any step, a run goes on to the same end, bit for bit.

Oracle: the same run, never interrupted. Compared are the final weights, and of the last checkpoint optimizer, schedule, random
numbers, position and every logged loss. Where it goes on from is that checkpoint which the journal of operations says was published.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.engine.resuming import Workspace, copied, results, states
from tests.harness.killing import KILLED, Case, Server, server
from tests.harness.settling import Settled, check_all, go_on, settled

pytestmark = pytest.mark.slow

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


def straight(kill_server: Server, scenario: str, settings: dict[str, str]) -> dict[str, Any]:
    """What the uninterrupted run leaves."""
    outcome = kill_server.run(Case(scenario, {"settings": settings}, settings["output_dir"]))
    assert outcome.code == 0, outcome.output
    return results(Path(settings["output_dir"]))


def check_points(
    kill_server: Server, scenario: str, settings: dict[str, str], every: int = 1, steps: Sequence[int] = (), last: str = "",
) -> int:
    """Go on from what a kill leaves at each `every`th operation (before it or, for writes, in its middle), and in the middle of `steps`.
    After the operation that begins with `last`, states are only settled. Returns how many states there were.
    """
    copies = Path(f"{settings['output_dir']}.copies")
    operations = copied(kill_server, scenario, settings, copies, every, steps)
    expected = results(Path(settings["output_dir"]))
    found = states(copies)
    assert not steps or f"step-{steps[0]}" in found
    settles = settled(kill_server, settings, found)
    check_checkpoints(operations, settles)
    end = next(number for number, one in enumerate(operations, start=1) if one.startswith(last)) if last else len(operations)
    chosen = {name: path for name, path in found.items() if not name.isdigit() or int(name) <= end}
    check_all(kill_server, scenario, settings, chosen, expected, settles)
    return len(found)


def check_checkpoints(operations: tuple[str, ...], settles: Mapping[str, Settled]) -> None:
    """Each state goes on from the newest checkpoint that was published, or from a later one that lay there whole and unpublished."""
    for name, found in settles.items():
        if name.isdigit():
            before = "\n".join(operations[: int(name) - 1])
            published = [0, *map(int, re.findall(r"^rename /checkpoint-(\d+) < /\.staging-", before, re.MULTILINE))]
            whole = [0, *map(int, re.findall(r"^rename /\.staging-(\d+)/manifest\.json <", before, re.MULTILINE))]
            assert found.step in (max(published), max(whole)) and found.step >= max(published), (name, found)


@pytest.mark.slow(minutes=1)
@pytest.mark.parametrize("changes", [{"lora_dropout": 0.2}, {"finetuning_type": "full"}])
def test_every_file_operation_of_a_run(kill_server: Server, workspace: Workspace, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Opening, saving, rotating, logging and the final save on one rank."""
    settings = workspace.settings(tmp_path / "run", **changes)
    assert check_points(kill_server, "train", settings) >= 300


@pytest.mark.slow(minutes=1)
def test_every_file_operation_on_two_ranks(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    """Both ranks killed, to the last checkpoint; the final save is the work of one rank alone."""
    settings = workspace.settings(tmp_path / "run", per_device_train_batch_size=2)
    assert check_points(kill_server, "train_on_two_ranks", settings, last="mkdir /.staging-final") >= 300


def tensors(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, with its bytes if it holds tensors: those files tell no times."""
    return {str(path.relative_to(directory)): path.read_bytes() if path.suffix == ".safetensors" else b""
            for path in directory.rglob("*") if path.is_file()}


def test_a_kill_leaves_what_the_copy_holds(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    """Killed in the middle of a write to a checkpoint, before its publication, before a removal and in the final save."""
    settings = workspace.settings(tmp_path / "run", lora_dropout=0.2)
    operations = copied(kill_server, "train", settings, tmp_path / "copies")
    for start, odd in (("write /.staging-6/", True), ("rename /checkpoint-6 ", False), ("unlink ", False),
                       ("rename /adapter_model.safetensors ", False)):
        number = next(number for number, one in enumerate(operations, start=1) if one.startswith(start) and (number % 2 or not odd))
        shutil.rmtree(tmp_path / "run")
        killed = kill_server.run(Case("train", {"settings": settings}, settings["output_dir"], "tear" if odd else "kill", number))
        assert killed.code == KILLED, killed.output
        assert tensors(tmp_path / "run") == tensors(tmp_path / "copies" / str(number)), operations[number - 1]


@pytest.mark.parametrize("name", SETUPS)
def test_steps_and_a_sample_of_operations_of_each_setup(kill_server: Server, workspace: Workspace, tmp_path: Path, name: str) -> None:
    """Inside steps 3, 6 and 11, as far as there are so many (before any checkpoint, between two, in the second epoch), and at every 29th
    operation."""
    settings = workspace.settings(tmp_path / "run", **SETUPS[name])
    assert check_points(kill_server, "train", settings, 29, (2, 5, 10)) >= 5


@pytest.mark.parametrize(("scenario", "changes"), [
    ("train", {"dataloader_num_workers": 2, "lora_dropout": 0.2}),
    ("train_on_two_ranks", {"per_device_train_batch_size": 2, "lora_dropout": 0.2, "ddp_timeout": 10})])
def test_killed_inside_a_step(
    kill_server: Server, workspace: Workspace, tmp_path: Path, scenario: str, changes: dict[str, Any]
) -> None:
    """The process itself, with data-loader workers, or with another rank that must end by itself. What it leaves is what the copy holds
    from which the other tests go on."""
    settings = workspace.settings(tmp_path / "run", **changes)
    copied(kill_server, scenario, settings, tmp_path / "copies", 0, (2, 5, 10))
    expected = results(tmp_path / "run")
    for step in (2, 5, 10):
        shutil.rmtree(tmp_path / "run")
        killed = kill_server.run(Case(scenario, {"settings": settings, "stop_after": step}, settings["output_dir"]))
        assert killed.code == KILLED, killed.output
        assert tensors(tmp_path / "run") == tensors(tmp_path / "copies" / f"step-{step}")
        (tmp_path / "run").rename(tmp_path / "killed")
        assert go_on(kill_server, scenario, settings, tmp_path / "killed") == expected


def test_two_ranks_train_what_one_does(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    """Identity: batches of 2 on two ranks are batches of 4 on one; every logged loss and gradient norm to 1e-5, LoRA in float32."""
    one = straight(kill_server, "train", workspace.settings(tmp_path / "one", logging_steps=1))
    two = straight(kill_server, "train_on_two_ranks", workspace.settings(
        tmp_path / "two", logging_steps=1, per_device_train_batch_size=2))
    assert len(one["state"]["log_history"]) == 12
    for ours, theirs in zip(one["state"]["log_history"], two["state"]["log_history"], strict=True):
        assert theirs == pytest.approx(ours, rel=1e-5)

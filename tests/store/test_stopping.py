"""Signals, and ranks that die or hang; what is drawn at random is in tests/selftest. Oracle: the run that no signal reached, bit for
bit; POSIX exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.store.running import finished, run
from tunewright.selftest.killing import Case, Server
from tunewright.selftest.workspace import Workspace, results

pytestmark = pytest.mark.slow
TWO = {"per_device_train_batch_size": 2, "lora_dropout": 0.2, "ddp_timeout": 20}


def checkpoints(output_dir: Path) -> list[str]:
    return sorted(path.name for path in output_dir.glob("checkpoint-*"))


@pytest.fixture(scope="module")
def straight(kill_server: Server, workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return results(finished(kill_server, workspace, tmp_path_factory.mktemp("one") / "run", lora_dropout=0.2))


@pytest.fixture(scope="module")
def straight_on_two(kill_server: Server, workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    output_dir = tmp_path_factory.mktemp("two") / "run"
    outcome = run(kill_server, workspace, output_dir, "train_on_two_ranks", **TWO)
    assert outcome.code == 0, outcome.output
    return results(output_dir)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize("step", [1, 5, 12])
def test_a_signal_to_one_process(
    kill_server: Server, workspace: Workspace, tmp_path: Path, straight: dict[str, object], number: int, step: int
) -> None:
    """In the middle of the first, of some, and of the last step: that step is taken and saved; at the last the run is done."""
    output_dir = tmp_path / "run"
    settings = workspace.settings(output_dir, lora_dropout=0.2)
    outcome = kill_server.run(Case("train_and_signal", {"settings": settings, "step": step, "number": number, "times": 1}, str(output_dir)))
    if step < 12:
        assert outcome.code == 75, outcome.output
        who = signal.Signals(number).name
        assert f"error: stopped by {who} after step {step}; checkpoint saved; run the same command again to go on" in outcome.output
        assert f"checkpoint-{step}" in checkpoints(output_dir)
        assert not (output_dir / "adapter_model.safetensors").exists()
    else:
        assert outcome.code == 0, outcome.output
    again = run(kill_server, workspace, output_dir, lora_dropout=0.2)
    assert again.code == 0, again.output
    assert results(output_dir) == straight


@pytest.mark.effect("stop_after")
@pytest.mark.parametrize(("scenario", "changes"), [("train", {"lora_dropout": 0.2}), ("train_on_two_ranks", TWO)])
def test_a_run_in_parts(
    kill_server: Server, workspace: Workspace, tmp_path: Path, request: pytest.FixtureRequest, scenario: str, changes: dict[str, object]
) -> None:
    """Five steps at a time: 75 twice, and at the end what the run in one part left."""
    expected = request.getfixturevalue("straight" if scenario == "train" else "straight_on_two")
    for step in (5, 10):
        outcome = run(kill_server, workspace, tmp_path / "run", scenario, stop_after=5, **changes)
        assert outcome.code == 75, outcome.output
        assert f"stopped by stop_after after step {step}; checkpoint saved" in outcome.output
    assert run(kill_server, workspace, tmp_path / "run", scenario, stop_after=5, **changes).code == 0
    assert results(tmp_path / "run") == expected


def test_a_second_interrupt_ends_at_once(kill_server: Server, workspace: Workspace, tmp_path: Path, straight: dict[str, object]) -> None:
    output_dir = tmp_path / "run"
    settings = workspace.settings(output_dir, lora_dropout=0.2)
    outcome = kill_server.run(Case("train_and_signal", {
        "settings": settings, "step": 5, "number": signal.SIGINT, "times": 2}, str(output_dir)))
    assert outcome.code == 130, outcome.output
    assert checkpoints(output_dir) == ["checkpoint-3"]
    assert run(kill_server, workspace, output_dir, lora_dropout=0.2).code == 0
    assert results(output_dir) == straight


def test_a_rank_that_hangs_ends_the_job(workspace: Workspace, tmp_path: Path) -> None:
    """The program's own launcher and processes; rank 1 is stopped. Exit 6 within the time limit."""
    settings = workspace.settings(
        tmp_path / "run", num_processes=2, use_cpu=True, num_train_epochs=5000, ddp_timeout=10, save_steps=20, save_total_limit=2)
    job = subprocess.Popen(
        [sys.executable, "-m", "tunewright", "train", *(f"{name}={value}" for name, value in settings.items())],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 90
        while not checkpoints(tmp_path / "run"):
            assert time.monotonic() < deadline and job.poll() is None
            time.sleep(0.1)
        os.kill(rank_of(job.pid, 1), signal.SIGSTOP)
        started = time.monotonic()
        _, told = job.communicate(timeout=60)
        assert time.monotonic() - started < 30
        assert job.returncode == 6, told
        assert "rank 0 of 2 lost contact with another rank while" in told
        assert "rank 1 does not answer after step " in told
    finally:
        if job.poll() is None:
            job.kill()
            job.wait()


def rank_of(launcher: int, rank: int) -> int:
    """The pid of a rank, found by its environment."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"\0RANK={rank}\0" in "\0" + Path(f"/proc/{child}/environ").read_text():
            return int(child)
    raise AssertionError(f"rank {rank} is not there")

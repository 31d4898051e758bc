"""One run at a time. Oracle: the kernel's lock, with real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.store.running import run
from tunewright.engine.run_lock import LOCK, locked
from tunewright.errors import InputError, StorageError
from tunewright.selftest.killing import Server
from tunewright.selftest.workspace import Workspace

HOLD = """
import os, signal, sys, time
from pathlib import Path
from tunewright.engine.run_lock import locked
with locked(Path(sys.argv[1])):
    if sys.argv[2] == "forks":
        child = os.fork()
        if child == 0:
            print(os.getpid(), flush=True)
            time.sleep(60)
    if sys.argv[2] == "runs a program":
        child = __import__("subprocess").Popen(["sleep", "60"]).pid
    if sys.argv[2] != "forks":
        print(child if sys.argv[2] != "alone" else 0, flush=True)
    time.sleep(60)
"""


def holder(output_dir: Path, how: str) -> tuple[subprocess.Popen[str], int]:
    """A process that holds the lock, and the pid of its child."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(output_dir), how], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def end(process: subprocess.Popen[str], child: int) -> None:
    for number in {process.pid, child} - {0}:
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()
    if process.stdout:
        process.stdout.close()


def test_a_second_process_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    process, child = holder(tmp_path / "run", "alone")
    try:
        with pytest.raises(InputError) as caught, locked(tmp_path / "run"):
            raise AssertionError("two runs in one directory")
        assert caught.value.line() == (
            f"output_dir {tmp_path / 'run'} is in use by process {process.pid} on {socket.gethostname()}; "
            "wait for it to end, or choose another output_dir")
    finally:
        end(process, child)


@pytest.mark.parametrize("how", ["alone", "forks", "runs a program"])
def test_the_lock_goes_with_its_holder_whatever_its_children_do(tmp_path: Path, how: str) -> None:
    """kill -9 of the holder; its child lives on, as a data-loader worker does for a while."""
    process, child = holder(tmp_path, how)
    try:
        process.kill()
        process.wait()
        if child:
            os.kill(child, 0)  # it is alive
        with locked(tmp_path):
            assert f'"pid": {os.getpid()}' in (tmp_path / LOCK).read_text()
    finally:
        end(process, child)


def test_the_directory_is_free_after_the_block_and_not_within(tmp_path: Path) -> None:
    """Also after an error, and twice in a row; and not for the same process."""
    with pytest.raises(KeyError), locked(tmp_path):
        with pytest.raises(InputError, match=f"in use by process {os.getpid()} on"), locked(tmp_path):
            raise AssertionError("held twice")
        raise KeyError
    with locked(tmp_path):
        pass


def test_a_child_that_leaves_the_block_does_not_free_the_directory(tmp_path: Path) -> None:
    """A forked worker that unwinds its stack closes only what is its own."""
    with locked(tmp_path):
        child = os.fork()
        if child == 0:
            try:
                raise SystemExit
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(InputError), locked(tmp_path):
            raise AssertionError("freed by a child")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"pid": 1}'])
def test_a_holder_that_cannot_be_read_is_another_process(tmp_path: Path, text: str) -> None:
    with locked(tmp_path):
        (tmp_path / LOCK).write_text(text)
        with pytest.raises(InputError, match="in use by another process;"), locked(tmp_path):
            raise AssertionError


def test_an_output_dir_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/run: output_dir cannot be written \(Not a directory\)"), \
            locked(tmp_path / "file" / "run"):
        raise AssertionError


@pytest.mark.slow
def test_two_runs_of_the_program(workspace: Workspace, kill_server: Server, tmp_path: Path) -> None:
    """The second exits 2 in one line; the first, killed while its data-loader workers live, is gone for the third."""
    settings = workspace.settings(tmp_path / "run", num_train_epochs=5000, dataloader_num_workers=2, save_strategy="no")
    first = subprocess.Popen(
        [sys.executable, "-m", "tunewright", "train", *(f"{name}={value}" for name, value in settings.items())],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not children(first.pid) or not (tmp_path / "run" / "trainer_log.jsonl").exists():
            assert time.monotonic() < deadline and first.poll() is None
            time.sleep(0.1)
        second = run(kill_server, workspace, tmp_path / "run", "command_line")
        assert second.code == 2 and f"is in use by process {first.pid} on {socket.gethostname()}; wait" in second.output
        workers = children(first.pid)
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)  # as one that hangs: it would not notice that its parent is gone
        first.kill()
        first.wait()
        third = run(kill_server, workspace, tmp_path / "run", dataloader_num_workers=0)
        assert third.code == 0, third.output
    finally:
        with contextlib.suppress(ProcessLookupError):  # all of the group may be gone by now
            os.killpg(first.pid, signal.SIGKILL)
        first.wait()


def children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []

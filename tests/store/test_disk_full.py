"""A full disk: exit code 4, what is needed and what is free; nothing torn is published; with room again the run ends the same.

Oracle: the same run on a disk that is not full, compared bit for bit.
"""

from __future__ import annotations

import re
import subprocess
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine.resuming import Workspace, results
from tests.harness.killing import Case, Server
from tests.harness.settling import check_all, settled
from tests.store.running import finished, run
from tunewright import durable
from tunewright.engine.checkpoint import CheckpointStore, Content, damage, read_checkpoint
from tunewright.errors import StorageError
from tunewright.runtime import Ranks

COUNTED = re.compile(r"error: (?P<where>/\S+): .*?(?P<need>[\d.,]+) MB needed, (?P<free>[\d.,]+) MB free; make room and run the same "
                     r"command again to go on")


def cuts(operations: tuple[str, ...]) -> list[tuple[int, str]]:
    """(bytes after which the disk is full, the file then written), in the middle of the first write of each kind of file in
    each checkpoint, of the log, of the final weights and of the results."""
    chosen: dict[tuple[str, str], int] = {}
    written = 0
    for operation in operations:
        if operation.startswith("write "):
            _, path, size = operation.split(" ")
            name = re.sub(r"^\.tmp.*", "weights", Path(path).name)
            chosen.setdefault((Path(path).parent.name, name), written + int(size) // 2)
            written += int(size)
    return [(at, f"{folder}/{name}") for (folder, name), at in chosen.items()]


@pytest.mark.slow
def test_the_disk_is_full_after_so_many_bytes(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    """In the record, the log, every file of every checkpoint, the final weights and the results; then with room."""
    settings = workspace.settings(tmp_path / "straight", lora_dropout=0.2)
    counted = kill_server.run(Case("command_line", {"settings": settings}, settings["output_dir"], "count"))
    assert counted.code == 0, counted.output
    expected = results(tmp_path / "straight")
    places = cuts(counted.operations)[1:]  # the first is the lock's note of who holds it
    assert len(places) >= 50
    chosen, states = places[::2], dict[str, Path]()
    for at, place in chosen:
        output_dir = tmp_path / f"full-{at}"
        settings = workspace.settings(output_dir, lora_dropout=0.2)
        outcome = kill_server.run(Case("command_line", {"settings": settings}, str(output_dir), "full", at))
        assert outcome.code == 4, (place, outcome.output)
        error = next(line for line in outcome.output.splitlines() if line.startswith("error:"))
        found = COUNTED.match(error)
        assert found and str(output_dir) in found["where"] and float(found["free"].replace(",", "")) > 1, (place, error)
        assert "No space left" in error or "no space left" in error, (place, error)
        for path in output_dir.glob("checkpoint-*"):
            checkpoint = read_checkpoint(path)
            assert checkpoint is not None and damage(checkpoint) == [], (place, path)
        states[f"{place}, {at}"] = output_dir
    assert len(chosen) >= 20
    settings = workspace.settings(tmp_path / "straight", lora_dropout=0.2)
    settles = settled(kill_server, settings, states, timed=False)
    assert {found.step for found in settles.values()} == {0, 3, 6, 9, 12}
    check_all(kill_server, "train", settings, states, expected, settles)


@contextmanager
def disk(path: Path, size: str) -> Iterator[bool]:
    """A file system of `size` at `path`; False, and an ordinary directory, where this process may not mount one."""
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(path)], check=True)


@pytest.mark.slow
def test_a_disk_of_four_megabytes(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    """A real one where it can be mounted, else the stand-in: the first save is refused, with room the run ends the same."""
    expected = results(finished(kill_server, workspace, tmp_path / "straight"))
    with disk(tmp_path / "disk", "4m") as mounted:
        output_dir = tmp_path / "disk" / "run"
        settings = workspace.settings(output_dir)
        mode, at = ("none", 0) if mounted else ("full", 100_000)
        outcome = kill_server.run(Case("command_line", {"settings": settings}, str(output_dir), mode, at))
        assert outcome.code == 4 and " MB needed, " in outcome.output, outcome.output
        assert list(output_dir.glob("checkpoint-*")) == []
        if mounted:
            assert f"error: {output_dir}: not enough space for a checkpoint: " in outcome.output
            subprocess.run(["mount", "-o", "remount,size=64m", str(tmp_path / "disk")], check=True)
        again = run(kill_server, workspace, output_dir)
        assert again.code == 0, again.output
        assert results(output_dir) == expected


def publish(store: CheckpointStore, step: int, size: int, estimate: int = 0) -> None:
    content = Content(lambda folder: None, lambda folder: _fill(folder, size), {})
    store.publish(step, content, estimate=estimate)


def _fill(folder: Path, size: int) -> None:
    (folder / "weights").write_bytes(b"x" * size)


def test_space_is_checked_before_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first save asks for the estimate, a later one for what the last took (1.5 MB and its manifest). Nothing is written."""
    usage = namedtuple("usage", "total used free")
    free = 10_000_000
    monkeypatch.setattr(durable.shutil, "disk_usage", lambda _: usage(10**9, 0, free))
    store = CheckpointStore(tmp_path, "abc", Ranks())
    with pytest.raises(StorageError, match=r"not enough space for a checkpoint: 20\.0 MB needed, 10\.0 MB free"):
        publish(store, 1, 1_500_000, estimate=20_000_000)
    assert list(tmp_path.iterdir()) == []
    publish(store, 1, 1_500_000, estimate=10_000_000)
    free = 1_400_000
    with pytest.raises(StorageError, match=r"1\.5 MB needed, 1\.4 MB free") as caught:
        publish(store, 2, 1)
    assert caught.value.where == str(tmp_path) and caught.value.exit_code == 4
    free = 1_600_000
    publish(store, 2, 1)
    assert [one.step for one in store.committed()] == [1, 2]


@pytest.mark.parametrize("failure", [
    OSError(28, "No space left on device"), OSError(5, "Input/output error"), OSError(122, "Disk quota exceeded"),
    FileNotFoundError(2, "No such file or directory"), Exception("No space left on device (os error 28)")])
def test_a_failed_write_leaves_nothing_and_loses_nothing(tmp_path: Path, failure: Exception) -> None:
    """Python's errors, and the plain Exception that the tokenizers library raises."""
    store = CheckpointStore(tmp_path, "abc", Ranks())
    publish(store, 1, 10)

    def fail(folder: Path) -> None:
        _fill(folder, 5)
        raise failure

    with pytest.raises(StorageError) as caught:
        store.publish(1, Content(fail, lambda folder: None, {}), estimate=0)
    reason = failure.strerror if isinstance(failure, OSError) else str(failure)
    assert f"cannot write ({reason}): 0.0 MB needed, " in caught.value.message and caught.value.where == str(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1"]
    assert [damage(one) for one in store.committed()] == [[]]


def test_a_defect_is_not_called_a_full_disk(tmp_path: Path) -> None:
    """Only errors of the system become StorageError."""
    def fail(folder: Path) -> None:
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        CheckpointStore(tmp_path, "abc", Ranks()).publish(1, Content(fail, fail, {}), estimate=0)


def test_a_publication_that_is_interrupted_puts_the_older_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second rename fails after the first moved the older checkpoint of the step out of the way."""
    store = CheckpointStore(tmp_path, "abc", Ranks())
    publish(store, 1, 10)
    real = durable.os.rename

    def rename(source: Path, target: Path) -> None:
        if Path(source).name == ".staging-1":
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(durable.os, "rename", rename)
    with pytest.raises(StorageError):
        publish(store, 1, 20)
    monkeypatch.undo()
    assert (tmp_path / "checkpoint-1" / "weights").stat().st_size == 10
    assert [damage(one) for one in CheckpointStore(tmp_path, "abc", Ranks()).committed()] == [[]]

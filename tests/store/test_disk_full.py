"""A full disk: exit code 4, what is needed and what is free; nothing torn is published; with room again the run ends the same.

Oracle: the same run on a disk that is not full, compared bit for bit.
"""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import pytest

from tunewright import durable
from tunewright.engine.checkpoint import CheckpointStore, Content, damage
from tunewright.errors import StorageError
from tunewright.runtime import Ranks


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

"""What may go wrong while rows become tokens: processes that die, disks that fill up or cannot be written, files that change.

Oracle: the files of one process that was not disturbed, and for the tokens of texts the tokenizer itself.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.data.test_tokenising import ROWS, SLOW, content, entry, here, model, prepare, wait_for, words
from tunewright.cli import main
from tunewright.commands.prepare import run as prepare_or_raise
from tunewright.data import tokenise_set
from tunewright.errors import InputError, LostRankError, StorageError

__all__ = ["here", "model"]


def at_shard(number: int, happens: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Something happens, in whichever process, before the shard of this number is written."""
    true_write = tokenise_set.write_shard

    def write(path: Path, *arguments: object) -> object:
        if path.name == f"{number:08d}.shard":
            happens()
        return true_write(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(tokenise_set, "write_shard", write)


def kill_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_ends_the_run_in_one_line(here: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done is kept, and the next run goes on from it to the same bytes."""
    prepare(model, data_cache_dir="whole")
    with monkeypatch.context() as patch:
        at_shard(3, kill_oneself, patch)
        with pytest.raises(LostRankError, match="a process that tokenises ended unexpectedly"):
            prepare_or_raise(words(model, preprocessing_num_workers=2))
    (building,) = Path("cache").glob(".building-*")
    assert {"00000000.shard", "00000001.shard"} <= {path.name for path in building.glob("*.shard")}
    prepare(model, preprocessing_num_workers=1)
    assert content(entry()) == content(entry("whole"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_fills_up_later(here: Path, model: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """No half of a shard is left; with room again, the run goes on to the same bytes."""
    prepare(model, data_cache_dir="whole")
    true_fsync = os.fsync

    def full(descriptor: int) -> None:
        if "00000002.shard" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        true_fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left on device"):
            prepare_or_raise(words(model, preprocessing_num_workers=workers))
    (building,) = Path("cache").glob(".building-*")
    assert not list(building.glob(".*.shard.new"))
    prepare(model, preprocessing_num_workers=workers)
    assert content(entry()) == content(entry("whole"))


def test_a_disk_that_is_full_at_the_end(here: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All shards are there, but not the room to lay them end to end: nothing is tokenised again."""
    prepare(model, data_cache_dir="whole")
    true_fsync = os.fsync

    def full(descriptor: int) -> None:
        if "offsets.npy" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        true_fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left on device"):
            prepare_or_raise(words(model, preprocessing_num_workers=1))
    at_shard(0, kill_oneself, monkeypatch)
    prepare(model, preprocessing_num_workers=1)
    assert content(entry()) == content(entry("whole"))


def as_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's answer to whoever writes on a disk that is mounted for reading."""
    true_open, true_mkdir = Path.open, Path.mkdir

    def refuse(path: Path) -> OSError:
        return OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def opened(self: Path, mode: str = "r", *arguments: object, **named: object) -> object:
        if "r" not in mode and not self.is_absolute():
            raise refuse(self)
        return true_open(self, mode, *arguments, **named)  # type: ignore[arg-type, call-overload]

    def made(self: Path, *arguments: object, **named: object) -> None:
        if not self.is_absolute() and not self.exists():
            raise refuse(self)
        true_mkdir(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(Path, "mkdir", made)


def test_a_cache_on_a_disk_that_can_only_be_read(here: Path, model: Path, monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    """What it holds is used; what it does not hold is made without it, and said."""
    prepare(model)
    before = content(Path("cache"))
    capsys.readouterr()
    as_read_only(monkeypatch)
    prepare(model)
    assert "token cache: hit for rows.jsonl: the same data files" in capsys.readouterr().out
    prepare(model, cutoff_len=32)
    said = capsys.readouterr().out
    assert re.search(r"token cache: not used, Read-only file system: cache/.lock-\w+; set data_cache_dir to a folder that can", said)
    assert f"of {ROWS} rows used" in said
    assert content(Path("cache")) == before


def test_prepared_sets_on_a_disk_that_can_only_be_read(here: Path, model: Path, monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    """They are used, though no lock can be made there; where there are none, one line says so."""
    prepare(model, tokenized_path="tokens")
    capsys.readouterr()
    Path(".tokens.lock").unlink()
    as_read_only(monkeypatch)
    prepare(model, tokenized_path="tokens")
    assert "tokenized_path: the tokens in tokens are used as they are" in capsys.readouterr().out
    with pytest.raises(StorageError) as caught:
        prepare_or_raise(words(model, tokenized_path="others"))
    assert caught.value.line() == ("others: tokenized_path cannot be written: Read-only file system; make room, or name a folder that can "
                                   "be written")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_changes_meanwhile_is_refused(here: Path, model: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """Its tokens are not those of the bytes that name the entry. Nothing of them is kept; the next run is of the new file."""
    def change() -> None:
        with Path("rows.jsonl").open("a") as file:
            file.write('{"instruction": "more", "output": "rows"}\n')

    with monkeypatch.context() as patch:
        at_shard(2, change, patch)
        with pytest.raises(InputError) as caught:
            prepare_or_raise(words(model, preprocessing_num_workers=workers))
        assert caught.value.line() == "rows.jsonl: the file was changed while it was tokenised; run the command again"
    assert [path.name for path in Path("cache").iterdir() if not path.name.startswith(".lock")] == []
    prepare(model)
    shutil.copy("rows.jsonl", "copy.jsonl")
    prepare(model, dataset="copy.jsonl", data_cache_dir="whole")
    same = [name for name in content(entry()) if name.endswith(".npy")]
    assert [content(entry())[name] for name in same] == [content(entry("whole"))[name] for name in same]


def test_the_same_bytes_under_another_ending_are_other_rows(here: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line of a text file is a document; in a JSON file it is an object that holds one. Oracle: the tokenizer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    line = json.dumps({"text": "some words of a document"})
    for name in ("a.jsonl", "a.txt"):
        Path(name).write_text(line + "\n")
    found = {}
    for name, text in (("a.jsonl", "some words of a document"), ("a.txt", line)):
        prepare(model, dataset=name, stage="pt")
        said = capsys.readouterr().out
        assert f"token cache: miss for {name}" in said
        prepare(model, dataset=name, stage="pt", tokenized_path=f"{name}.tokens", packing="false")
        found[name] = np.load(next(Path(f"{name}.tokens").rglob("input_ids.npy"))).tolist()
        assert found[name][: len(tokenizer(text)["input_ids"])] == tokenizer(text)["input_ids"]
    assert found["a.jsonl"] != found["a.txt"]


@pytest.mark.slow
def test_an_interrupt_of_all_processes_is_said_once(here: Path, model: Path) -> None:
    """^C reaches the workers too: they say nothing, and the work is continued."""
    import sys

    prepare(model, data_cache_dir="whole")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    # A shell that runs the tests in the background lets them, and what they start, ignore ^C.
    heeding = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command = [sys.executable, "-c", heeding + SLOW, *words(model, preprocessing_batch_size=3, preprocessing_num_workers=2)]
    started = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, start_new_session=True)
    wait_for(".building-*/*.shard", 2)
    os.killpg(started.pid, signal.SIGINT)
    said = started.communicate(timeout=120)[1]
    assert started.returncode == 130, said
    assert "Traceback" not in said
    assert main(["prepare", *words(model)]) == 0
    assert content(entry()) == content(entry("whole"))

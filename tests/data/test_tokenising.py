"""Tokenisation in shards: the same bytes however it is done, interrupted, shared or damaged.

Oracles: the files of one process that was not disturbed, and the operating system's own limits.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunewright.cli import main
from tunewright.data.files import DataFile
from tunewright.data.formats.layout import layout
from tunewright.data.records import Origin
from tunewright.data.sources import Settled, Source
from tunewright.data.tokenise_set import Pace, Progress, Tokeniser
from tunewright.errors import InputError, StorageError
from tunewright.selftest.tiny import write_model

ROWS = 230


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path) -> Path:
    """An empty folder with rows of many kinds: white space, control tokens, other scripts, too long, without an answer."""
    monkeypatch.chdir(tmp_path)
    answers = ["yes", " spaced \n", "<|im_end|> said", "你好,世界 naïve", "long " * 90, "", "it's 123.\n\n\tx = y"]
    with Path("rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(ROWS):
            row = {"instruction": f"ask {number}", "output": answers[number % len(answers)]}
            file.write(json.dumps(row, ensure_ascii=number % 2 == 0) + "\n" + "\n" * (number % 50 == 7))
    return tmp_path


def words(model: Path, **settings: object) -> list[str]:
    given = {"dataset": "rows.jsonl", "data_cache_dir": "cache", "cutoff_len": 64, "preprocessing_batch_size": 40, **settings}
    return [f"model_name_or_path={model}", *(f"{name}={value}" for name, value in given.items())]


def prepare(model: Path, **settings: object) -> None:
    assert main(["prepare", *words(model, **settings)]) == 0


def entry(cache: str = "cache") -> Path:
    """The only entry of a cache."""
    (found,) = (path for path in Path(cache).iterdir() if not path.name.startswith("."))
    return found


def content(folder: Path) -> dict[str, str]:
    """Every file of a folder with the hash of its bytes."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.effect("preprocessing_batch_size", "preprocessing_num_workers")
@pytest.mark.parametrize(("workers", "size"), [(1, 1), (1, 1000), (2, 40), (3, 7)])
def test_the_same_bytes_for_any_workers_and_sizes(here: Path, model: Path, monkeypatch: pytest.MonkeyPatch, workers: int,
                                                  size: int) -> None:
    """Also the notes; and as many shards are written as rows and size ask for."""
    from tunewright.data import tokenise_set

    prepare(model, data_cache_dir="one", preprocessing_num_workers=1)
    finished: list[int] = []
    monkeypatch.setattr(tokenise_set, "ordered_map", counting(finished))
    prepare(model, preprocessing_num_workers=workers, preprocessing_batch_size=size)
    assert content(entry()) == content(entry("one"))
    assert set(content(entry())) == {"input_ids.npy", "labels.npy", "offsets.npy", "origins.npy", "notes.jsonl", "manifest.json"}
    assert finished == [-(-ROWS // size)]


def counting(finished: list[int]):  # type: ignore[no-untyped-def]
    from tunewright.data.workers import ordered_map

    def counted(work, items, workers):  # type: ignore[no-untyped-def]
        results = list(ordered_map(work, items, workers))
        finished.append(len(results))
        return results

    return counted


class Stopped(BaseException):
    """What a test stops the work with, as a kill would: nobody catches it."""


@contextlib.contextmanager
def stopped_after(shards: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from tunewright.data import tokenise_set

    written = []

    def write(*arguments: object) -> object:
        if len(written) == shards:
            raise Stopped
        written.append(1)
        return true_write(*arguments)  # type: ignore[arg-type]

    true_write = tokenise_set.write_shard
    monkeypatch.setattr(tokenise_set, "write_shard", write)
    with pytest.raises(Stopped):
        yield
    monkeypatch.setattr(tokenise_set, "write_shard", true_write)


@pytest.mark.parametrize("size", [40, 3])
def test_a_stopped_run_is_continued(here: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                    size: int) -> None:
    """Three shards of 40 are there; whatever size the next run has, it goes on from them; the bytes are those of an undisturbed one."""
    prepare(model, data_cache_dir="whole")
    with stopped_after(3, monkeypatch):
        prepare(model, preprocessing_num_workers=1)
    (building,) = Path("cache").glob(".building-*")
    kept = {path.name: path.stat().st_mtime_ns for path in building.glob("*.shard")}
    assert sorted(kept) == ["00000000.shard", "00000001.shard", "00000002.shard"]
    capsys.readouterr()
    prepare(model, preprocessing_num_workers=2, preprocessing_batch_size=size)
    assert f"rows.jsonl: 120 of {ROWS} rows were tokenised by an earlier run that was stopped" in capsys.readouterr().out
    assert content(entry()) == content(entry("whole"))
    assert not list(Path("cache").glob(".building-*"))


def spoil_flip(path: Path) -> None:
    held = bytearray(path.read_bytes())
    held[-5] ^= 1
    path.write_bytes(held)


def spoil_cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 10)


def spoil_head(path: Path) -> None:
    path.write_bytes(b"{}\n" + path.read_bytes())


def spoil_empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [spoil_flip, spoil_cut, spoil_head, spoil_empty])
def test_a_damaged_shard_is_made_again(here: Path, model: Path, monkeypatch: pytest.MonkeyPatch, spoil) -> None:  # type: ignore[no-untyped-def]
    prepare(model, data_cache_dir="whole")
    with stopped_after(3, monkeypatch):
        prepare(model, preprocessing_num_workers=1)
    (building,) = Path("cache").glob(".building-*")
    spoil(building / "00000001.shard")
    (building / ".00000004.shard.new").write_bytes(b"half of a shard")
    prepare(model, preprocessing_num_workers=1)
    assert content(entry()) == content(entry("whole"))


def test_a_plan_that_cannot_be_read_begins_anew(here: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(model, data_cache_dir="whole")
    with stopped_after(2, monkeypatch):
        prepare(model, preprocessing_num_workers=1)
    (building,) = Path("cache").glob(".building-*")
    (building / "plan.json").write_text("{")
    prepare(model, preprocessing_num_workers=1, preprocessing_batch_size=33)
    assert content(entry()) == content(entry("whole"))


def test_shards_of_rows_that_must_be_mended_go(here: Path, model: Path) -> None:
    """Nothing will ask for them again, because the file will be another. The first wrong row is told, whoever met it first."""
    lines = Path("rows.jsonl").read_text().splitlines()
    lines[100], lines[200] = '{"instruction": 1, "output": "x"}', '{"instruction": 2, "output": "x"}'
    Path("rows.jsonl").write_text("\n".join(lines))
    from tunewright.commands.prepare import run

    for workers in (1, 3):
        with pytest.raises(InputError) as caught:
            run(words(model, preprocessing_num_workers=workers, preprocessing_batch_size=9))
        assert caught.value.line().startswith("rows.jsonl:101: instruction: string wanted, found integer 1")
    assert not list(Path("cache").glob(".building-*")) if Path("cache").exists() else True


SLOW = """
import sys, time
from tunewright.data import tokenise_set
true_write = tokenise_set.write_shard
def slow(*arguments):
    time.sleep(0.15)
    return true_write(*arguments)
tokenise_set.write_shard = slow
from tunewright.cli import main
sys.exit(main(["prepare", *sys.argv[1:]]))
"""


def started(model: Path, **settings: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", SLOW, *words(model, preprocessing_batch_size=20, **settings)], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)


def wait_for(pattern: str, number: int) -> None:
    end = time.monotonic() + 120
    while len(list(Path("cache").glob(pattern))) < number:
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_runs_share_the_cache_though_one_is_killed(here: Path, model: Path) -> None:
    """The first of two processes is killed with -9 after some shards; the other, which waited, goes on from them, to the same bytes."""
    prepare(model, data_cache_dir="whole")
    first = started(model, preprocessing_num_workers=2)
    wait_for(".building-*/*.shard", 2)
    second = started(model, preprocessing_num_workers=2)
    wait_for(".building-*/*.shard", 4)
    first.send_signal(signal.SIGKILL)
    said = second.communicate(timeout=120)[0]
    first.communicate()
    assert second.returncode == 0, said
    assert "token cache: waiting for another run that tokenises rows.jsonl" in said or "were tokenised by an earlier run" in said
    assert "rows were tokenised by an earlier run that was stopped" in said
    assert content(entry()) == content(entry("whole"))


@pytest.mark.slow
def test_three_runs_at_once_make_one_entry(here: Path, model: Path) -> None:
    """One tokenises; the others wait and find it."""
    runs = [started(model, preprocessing_num_workers=1) for _ in range(3)]
    said = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], said
    assert sorted("hit for rows.jsonl" in one for one in said) == [False, True, True]


@pytest.mark.parametrize("where", ["data_cache_dir=cache", "tokenized_path=tokens"])
def test_a_full_disk_is_one_line(here: Path, model: Path, where: str) -> None:
    """Oracle: the operating system refuses to write files of more than 4 kB (ulimit), as it would on a full disk."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    limited = ("import resource, sys; from tunewright.cli import main; import transformers, torch, numpy; "
               "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); sys.exit(main(sys.argv[1:]))")
    command = [sys.executable, "-B", "-c", limited, "prepare", *words(model), where]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == StorageError.exit_code, done.stderr
    assert done.stderr.strip().count("\n") == 0
    assert "File too large" in done.stderr
    assert "cannot be written" in done.stderr


def test_progress_says_rate_and_time_left() -> None:
    """Worked by hand: 300 new rows in 30 s are 10 rows/s; from 20 % to 50 % took 30 s, so that 50 % take 50 s."""
    said: list[str] = []
    times = iter([0.0, 0.0, 12.0, 30.0, 90.0])
    progress = Progress("set", said.append, lambda: next(times))
    progress.at(200, 0.2, is_old=True)
    progress.at(320, 0.32)
    progress.at(500, 0.5)
    progress.end(1000)
    assert said == ["set: 320 rows tokenised, 10 rows/s, 32%, 1 min 8 s left", "set: 500 rows tokenised, 10 rows/s, 50%, 50 s left",
                    "set: 200 of 1000 rows were tokenised by an earlier run that was stopped",
                    "set: 1000 rows tokenised in 1 min 30 s, 9 rows/s"]


@pytest.mark.parametrize(("size", "cores", "given", "expected"), [
    (100, 8, None, 1), (9_000_000, 8, None, 2), (900_000_000, 8, None, 8), (10**12, 64, None, 16),
    (100, 8, 3, 3), (900_000_000, 1, None, 1)])
def test_as_many_processes_as_pay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, cores: int, given: int | None,
                                  expected: int) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.truncate(size)
    monkeypatch.setattr("tunewright.data.tokenise_set.cores", lambda: cores)
    settled = Settled(Source("a", (DataFile(path, "jsonl"),), None), layout("text", {}), "")
    assert Pace(given, 1000).processes(settled) == expected


def test_origins_of_rows_in_other_processes(here: Path, model: Path) -> None:
    """Files and lines are right in every shard: blank lines are counted, rows are not."""
    prepare(model, preprocessing_num_workers=2, preprocessing_batch_size=11)
    import numpy as np

    origins = np.load(entry() / "origins.npy")
    blank = [7 + 50 * number for number in range(5) if 7 + 50 * number < ROWS]
    assert [line for _, _, line in origins.tolist()] == [index + 1 + sum(one < index for one in blank) for _, index, _ in origins.tolist()]
    assert str(Origin("rows.jsonl", 0, 1)) == "rows.jsonl:1"


def from_here(self: Tokeniser, *arguments: object) -> object:
    """The call, with memory counted from here on: before, up to 1 MB of each file is looked at."""
    import tracemalloc

    if tracemalloc.is_tracing():
        tracemalloc.reset_peak()
    return true_call(self, *arguments)  # type: ignore[arg-type]


true_call = Tokeniser.__call__


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(here: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the rows: what Python and numpy hold at most, by tracemalloc, grows by less than half, with blocks that both fill."""
    import tracemalloc

    monkeypatch.setattr("tunewright.data.shards._BLOCK", 4096)
    monkeypatch.setattr("tunewright.data.examples._ROWS_AT_A_TIME", 50)
    monkeypatch.setattr(Tokeniser, "__call__", from_here)

    from tunewright.selftest.tiny import write_rows

    def most(count: int) -> int:
        write_rows(Path("many.jsonl"), count, longest=60)
        tracemalloc.start()
        prepare(model, dataset="many.jsonl", data_cache_dir=f"c{count}", cutoff_len=4000, preprocessing_num_workers=1,
                preprocessing_batch_size=50)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    most(200)
    few, many = most(400), most(4000)
    assert many < few * 3 / 2

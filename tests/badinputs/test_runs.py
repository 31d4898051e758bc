"""An output directory that holds a run: what may not be resumed, mixed or overwritten, and that no secret is ever in it."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path

import pytest

from tests.badinputs.workspace import answer, assert_lines, copy_workspace, tree
from tunewright.selftest.bad_case import NATIVE, Case, every, put, written
from tunewright.selftest.bad_runs import CASES, SETTINGS

CANARY = "hf_" + "Canary" * 5 + "1"


@pytest.fixture(scope="module")
def trained(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace after two steps, trained with a secret in every variable that may hold one."""
    from tunewright.cli import main

    folder = copy_workspace(original, tmp_path_factory.mktemp("trained") / "here")
    (folder / "c.yaml").write_text(written(SETTINGS, {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "OPENAI_API_KEY", "SWANLAB_API_KEY"):
            patch.setenv(name, CANARY)
        assert main(["train", "c.yaml"]) == 0
    return folder


@pytest.fixture
def there(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as working directory."""
    folder = copy_workspace(trained, tmp_path / "here")
    monkeypatch.chdir(folder)
    return folder


def test_no_secret_is_written(trained: Path) -> None:
    """A byte search over everything the run left."""
    files = [path for path in trained.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path.name for path in files if CANARY.encode() in path.read_bytes()] == []


def test_a_secret_in_a_configuration_is_refused_unsaid(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Under every name of a secret: refused, and the message does not repeat it."""
    for name in ("hf_hub_token", "hub_token", "wandb_api_key", "swanlab_api_key", "api_key", "my_secret_token"):
        Path("c.yaml").write_text(written(NATIVE, {name: CANARY}))
        before = tree(here)
        code, lines = answer(["train", "c.yaml"], capsys)
        assert (code, len(lines)) == (2, 1), lines
        assert_lines(lines, (f"c.yaml:7: {name}: ... a secret does not belong in a configuration ... set",))
        assert CANARY not in lines[0]
        assert tree(here) == before


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name.replace(" ", "-"))
def test_run(one: Case, there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused in one line with what to do; nothing lost: every file of the old run is as it was."""
    Path("c.yaml").write_text(written(SETTINGS, one.settings))
    if one.spoil is not None:
        one.spoil(there)
    before = tree(there)
    code, lines = answer(["train", "c.yaml"], capsys)
    assert_lines([line for line in lines if line.startswith("error") or "Traceback" in line], one.expected)
    assert code == 2
    lock = str(Path("out/.tunewright.lock"))
    assert {**tree(there), lock: ""} == {**before, lock: ""}


def test_a_live_run_is_left_alone(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` and `train` name the holder of the lock."""
    lock = Path("out/.tunewright.lock")
    with lock.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        holder = json.loads(lock.read_text())
        before = tree(there)
        for verb, place in (("check", "c.yaml:3: output_dir: out"), ("train", "output_dir out")):
            code, lines = answer([verb, "c.yaml"], capsys)
            wanted = f"{place} is in use by process {holder['pid']} on {holder['host']}; wait for it to end, or choose another output_dir"
            assert_lines([line for line in lines if line.startswith("error")], (wanted,))
            assert code == 2
        assert tree(there) == before


def test_the_disk_refuses(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory that not even a superuser can make: exit code 4, before a model is opened, nothing written."""
    Path("c.yaml").write_text(written(NATIVE, {"output_dir": "/proc/tunewright"}))
    before = tree(here)
    code, lines = answer(["train", "c.yaml"], capsys)
    assert_lines([line for line in lines if line.startswith("error")], ("/proc/tunewright: output_dir cannot be written",))
    assert code == 4
    assert tree(here) == before


def test_foreign_files_stay(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory with somebody's notes and a checkpoint of another tool may be used; nothing of it is touched."""
    foreign = every(put("out/notes.txt", "mine"), put("out/checkpoint-7/trainer_state.json", "{}"))
    foreign(here)
    Path("c.yaml").write_text(written(SETTINGS, {"save_total_limit": "1"}))
    code, lines = answer(["train", "c.yaml"], capsys)
    assert code == 0, lines
    assert Path("out/notes.txt").read_text() == "mine"
    assert Path("out/checkpoint-7/trainer_state.json").read_text() == "{}"
    shutil.rmtree("out")


@pytest.mark.parametrize(("rows", "mend"), [
    (4, "per_device_train_batch_size: 2 with twice the gradient_accumulation_steps computes the same; or use a smaller cutoff_len"),
    (1, "use a smaller cutoff_len, or gradient_checkpointing: true")])
def test_out_of_memory_says_what_was_tried(rows: int, mend: str) -> None:
    """A tensor of 4 exabytes, asked of torch itself: exit code 3, rows, positions and tokens of the batch."""
    import numpy as np
    import torch

    from tunewright.data.collate import Example, collate_padded
    from tunewright.engine.memory import memory_told
    from tunewright.errors import OutOfMemoryError

    ids = np.arange(1, 6, dtype=np.int32)
    batch = collate_padded([Example(ids, ids, np.array([0, 5], np.int32), number) for number in range(rows)], pad_token_id=0)
    with pytest.raises(OutOfMemoryError) as refused, memory_told(batch):
        torch.empty(2**60)
    assert refused.value.exit_code == 3
    assert str(refused.value).startswith(f"out of memory on a batch of {rows} rows ({rows} x 5 positions, {rows * 5} tokens); {mend}")
    with pytest.raises(RuntimeError, match="size"), memory_told(batch):
        torch.ones(2) + torch.ones(3)

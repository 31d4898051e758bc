"""The data loader's options, and which checkpoints and weights a run leaves. Oracles: hand-counted steps and rows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.effects.engine_runs import config, losses, resumed_equals_whole, run
from tunewright.config.optimization import BatchingConfig
from tunewright.data.collate import Example
from tunewright.engine import assemble
from tunewright.engine.batches import TrainBatches
from tunewright.errors import InputError
from tunewright.runtime import Ranks
from tunewright.selftest.workspace import Workspace


class Numbered:
    """Examples of four tokens; with `diary`, each access is noted there, from whatever process."""

    def __init__(self, count: int, diary: Path | None = None) -> None:
        self.count, self.diary, self.lengths = count, diary, np.full(count, 4)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        if self.diary is not None:
            with self.diary.open("a") as file:
                file.write(f"{index}\n")
        ids = np.full(4, index + 1, dtype=np.int32)
        return Example(ids, ids, np.array([0, 4], dtype=np.int32), index)


def batches(examples: Numbered, workspace: Workspace, **changes: Any) -> TrainBatches:
    return assemble.training_batches(config(workspace, Path("out"), **changes), examples, assemble.collation(False, 0), Ranks())


def epoch(found: TrainBatches, number: int, offset: int = 0) -> list[list[int]]:
    """The rows of each optimizer step."""
    return [[one for batch in window.batches for one in batch.sample_ids] for window in found.windows(number, offset)]


@pytest.mark.effect("disable_shuffling")
def test_rows_in_file_order(workspace: Workspace) -> None:
    """22 rows by fours: 0 1 2 3, 4 5 6 7, ... in every epoch, from any offset; shuffled, each epoch has another order."""
    plain = batches(Numbered(22), workspace, disable_shuffling=True)
    expected = [list(range(start, min(start + 4, 22))) for start in range(0, 22, 4)]
    assert epoch(plain, 0) == epoch(plain, 1) == expected
    assert epoch(plain, 0, offset=8) == expected[2:]
    shuffled = batches(Numbered(22), workspace)
    assert epoch(shuffled, 0) != epoch(shuffled, 1) and sorted(one for step in epoch(shuffled, 0) for one in step) == list(range(22))


@pytest.mark.slow
def test_a_run_in_file_order_resumes_exactly(workspace: Workspace, tmp_path: Path) -> None:
    assert resumed_equals_whole(workspace, tmp_path / "a", disable_shuffling=True)
    run(workspace, tmp_path / "b", logging_steps=1)
    assert losses(tmp_path / "a") != losses(tmp_path / "b")


@pytest.mark.effect("dataloader_drop_last")
def test_last_rows_are_left_out(workspace: Workspace) -> None:
    """22 rows in steps of 4 x 2: two whole steps and six rows that do not fill a third; two ranks x 4 leave out the same six."""
    kept = batches(Numbered(22), workspace, gradient_accumulation_steps=2)
    dropped = batches(Numbered(22), workspace, gradient_accumulation_steps=2, dataloader_drop_last=True)
    assert [len(step) for step in epoch(kept, 0)] == [8, 8, 6] and kept.steps_per_epoch == 3
    assert epoch(dropped, 0) == epoch(kept, 0)[:2] and dropped.steps_per_epoch == 2
    assert epoch(dropped, 0, offset=8) == epoch(kept, 0)[1:2]
    assert [window.ends_epoch for window in dropped.windows(0, 0)] == [False, True]
    run_of = config(workspace, Path("out"), dataloader_drop_last=True)
    mine = assemble.training_batches(run_of, Numbered(22), assemble.collation(False, 0), Ranks(1, 2))
    assert [len(step) for step in epoch(mine, 0)] == [4, 4]


@pytest.mark.slow
def test_a_run_without_its_last_rows(workspace: Workspace, tmp_path: Path) -> None:
    """Five steps an epoch instead of six: two epochs end at step 10 with 40 rows seen; too few rows for a step are refused."""
    figures = run(workspace, tmp_path / "a", dataloader_drop_last=True, save_strategy="no")
    assert figures["epoch"] == 2.0
    assert (tmp_path / "a" / "trainer_log.jsonl").read_text().splitlines()[-1].startswith('{"current_steps": 10, "total_steps": 10')
    with pytest.raises(InputError, match=r"dataloader_drop_last: the 22 training samples do not fill one optimizer step of 32"):
        run(workspace, tmp_path / "b", dataloader_drop_last=True, per_device_train_batch_size=32)


@pytest.mark.effect("dataloader_prefetch_factor")
@pytest.mark.parametrize("factor", [1, 5])
def test_batches_prepared_ahead(workspace: Workspace, tmp_path: Path, factor: int) -> None:
    """One worker, one row a batch: after the first batch was taken, as many more as the factor says are read, and no more."""
    found = batches(Numbered(20, tmp_path / "diary"), workspace, dataloader_num_workers=1, dataloader_prefetch_factor=factor,
                    per_device_train_batch_size=1)
    windows = found.windows(0, 0)
    next(windows)
    deadline = time.monotonic() + 20
    while read(tmp_path / "diary") < 1 + factor and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    assert read(tmp_path / "diary") == 1 + factor
    windows.close()


def read(diary: Path) -> int:
    return len(diary.read_text().splitlines()) if diary.exists() else 0


@pytest.mark.effect("dataloader_pin_memory", "use_cpu")
@pytest.mark.parametrize(("present", "changes", "pinned"), [
    (True, {}, True), (True, {"dataloader_pin_memory": False}, False), (True, {"use_cpu": True}, False), (False, {}, False)])
def test_batches_are_pinned_for_an_accelerator(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, present: bool, changes: dict[str, Any], pinned: bool
) -> None:
    """Where the machine has an accelerator, and only there. Whether it has one is the border that is simulated."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: present)
    assert batches(Numbered(4), workspace, **changes).loading.pinned is pinned
    assert assemble.loading(BatchingConfig(), assemble.collation(False, 0)).pinned is False


@pytest.mark.slow
@pytest.mark.effect("save_epochs")
def test_checkpoints_of_steps_and_of_epochs(workspace: Workspace, tmp_path: Path) -> None:
    """Six steps an epoch, four epochs: every second epoch ends at 12 and 24, every tenth step is 10 and 20."""
    common = {"num_train_epochs": 4, "save_steps": 10, "save_total_limit": 9}
    run(workspace, tmp_path / "both", save_epochs=2, **common)
    run(workspace, tmp_path / "steps", **common)
    assert steps_kept(tmp_path / "both") == [10, 12, 20, 24] and steps_kept(tmp_path / "steps") == [10, 20, 24]


def steps_kept(output_dir: Path) -> list[int]:
    return sorted(int(path.name.partition("-")[2]) for path in output_dir.glob("checkpoint-*"))


@pytest.mark.slow
@pytest.mark.effect("save_hf_weights")
def test_final_weights_only_where_wanted(workspace: Workspace, tmp_path: Path) -> None:
    """Without them the output directory holds results and checkpoints, and the last of these has the same weights."""
    run(workspace, tmp_path / "with", max_steps=3)
    run(workspace, tmp_path / "without", max_steps=3, save_hf_weights=False)
    assert not list((tmp_path / "without").glob("adapter_*")) and (tmp_path / "without" / "train_results.json").exists()
    names = [tmp_path / "with", tmp_path / "without" / "checkpoint-3"]
    assert len({(name / "adapter_model.safetensors").read_bytes() for name in names}) == 1

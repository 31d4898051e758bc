"""train_from_scratch: a run that starts from random weights, needs no weights file, and resumes like any other."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tunewright.commands.train import train
from tunewright.dialects.read import read_config
from tunewright.selftest.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def quiet_random() -> Iterator[None]:
    """Runs seed the process's generators; other tests must not notice."""
    with torch.random.fork_rng():
        yield


def run(workspace: Workspace, output_dir: Path, **changes: Any) -> None:
    settings = workspace.settings(output_dir, finetuning_type="full", train_from_scratch="true", save_steps=2, max_steps=4, **changes)
    train(read_config([f"{name}={value}" for name, value in settings.items()], purpose="train").resolve().config)


@pytest.mark.effect("train_from_scratch")
def test_from_scratch_needs_no_weights_and_resumes(tmp_path: Path) -> None:
    """Another seed is another model; a run continued from its second step ends as the uninterrupted one, bit by bit."""
    workspace = Workspace.make(tmp_path)
    model = Path(str(workspace.settings(tmp_path)["model_name_or_path"]))
    (model / "model.safetensors").unlink()
    for name, seed in (("a", 1), ("b", 2), ("c", 1)):
        run(workspace, tmp_path / name, seed=seed)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert not any(torch.equal(a[name], b[name]) for name in a if "proj" in name)
    for path in (tmp_path / "c").iterdir():  # as if the run had been killed after its first checkpoint
        if path.name not in ("checkpoint-2", "run.json", "data_audit.jsonl"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    run(workspace, tmp_path / "c", seed=1)
    c = load_file(tmp_path / "c" / "model.safetensors")
    assert all(torch.equal(a[name], c[name]) for name in a)

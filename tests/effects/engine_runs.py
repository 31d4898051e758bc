"""What the tests of the engine's options share: short runs of the tiny model in this process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from tunewright.commands.train import train
from tunewright.config.run import RunConfig
from tunewright.dialects.read import read_config
from tunewright.selftest.workspace import Workspace, results


def config(workspace: Workspace, output_dir: Path, **changes: Any) -> RunConfig:
    """The resolved run of the workspace's settings with `changes`, as the command line gives them."""
    settings = workspace.settings(output_dir, **changes)
    return read_config([f"{name}={value}" for name, value in settings.items()], purpose="train").resolve().config


def run(workspace: Workspace, output_dir: Path, **changes: Any) -> dict[str, float]:
    """Train; the figures of the run."""
    return train(config(workspace, output_dir, **changes))


def history(output_dir: Path) -> list[dict[str, Any]]:
    """The log of a run."""
    found: list[dict[str, Any]] = json.loads((output_dir / "trainer_state.json").read_text())["log_history"]
    return found


def losses(output_dir: Path) -> list[float]:
    """The logged training losses."""
    return [entry["loss"] for entry in history(output_dir) if "loss" in entry]


def weights(directory: Path) -> dict[str, Tensor]:
    """The weights that a run, or a checkpoint, holds."""
    name = "adapter_model.safetensors" if (directory / "adapter_model.safetensors").exists() else "model.safetensors"
    return load_file(directory / name)


def resumed_equals_whole(workspace: Workspace, output_dir: Path, **changes: Any) -> bool:
    """Whether a run that loses its last checkpoint and its results, and is started again, ends bit for bit as before.

    Two epochs of six steps with a checkpoint every fourth: it goes on from step 8, in the middle of the second epoch.
    """
    settings = {"save_steps": 4, "save_total_limit": 5, "logging_steps": 1, **changes}
    run(workspace, output_dir, **settings)
    whole = results(output_dir)
    shutil.rmtree(output_dir / "checkpoint-12")
    for path in output_dir.glob("*model*.safetensors"):
        path.unlink()
    run(workspace, output_dir, **settings)
    return bool(results(output_dir) == whole)

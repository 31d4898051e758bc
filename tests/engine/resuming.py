"""What the resume tests share: a tiny workspace, and what must be bit-identical at the end of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness.killing import Case, Server, digest
from tests.harness.tiny import write_model, write_rows

LAST = ("optimizer.safetensors", "optimizer.json", "scheduler.json", "random-0.json", "adapter_model.safetensors", "model.safetensors",
        "value_head.safetensors")
TIMES = ("runtime", "per_second")


@dataclass(frozen=True)
class Workspace:
    """A tiny model, rows to train on and rows to evaluate."""

    path: Path

    @classmethod
    def make(cls, path: Path) -> Workspace:
        """22 rows in batches of 4: an epoch of six micro-batches whose last has two rows."""
        write_model(path / "model")
        write_rows(path / "rows.jsonl", 22)
        write_rows(path / "held_out.jsonl", 5, seed=1)
        return cls(path)

    def settings(self, output_dir: Path, **changes: Any) -> dict[str, str]:
        """Two epochs of LoRA with a checkpoint every third step, the oldest rotated away."""
        chosen = {
            "model_name_or_path": self.path / "model", "dataset": self.path / "rows.jsonl", "output_dir": output_dir,
            "num_train_epochs": 2, "save_steps": 3, "save_total_limit": 2, "logging_steps": 2, "learning_rate": 0.01,
            "data_cache_dir": "none", "plot_loss": False, "disable_tqdm": True, **changes}
        return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in chosen.items()}


def results(output_dir: Path) -> dict[str, Any]:
    """The final weights; optimizer, schedule, random numbers and position of the last checkpoint; every logged number but times."""
    checkpoints = sorted(output_dir.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    last = checkpoints[-1]
    weights = [name for name in LAST[4:] if (output_dir / name).exists()]
    state = json.loads((last / "train_state.json").read_text())
    state.pop("elapsed_s")
    state["log_history"] = [
        {name: value for name, value in entry.items() if not name.endswith(TIMES)} for entry in state["log_history"]]
    present = [name for name in LAST if (last / name).exists()]
    return {"final": digest(output_dir, weights), "last": digest(last, present), "name": last.name, "state": state}


def copied(
    server: Server, scenario: str, settings: dict[str, str], copies: Path, every: int = 1, steps: Sequence[int] = (),
) -> tuple[str, ...]:
    """A run that is not interrupted, and copies of its output directory as a kill would have left it: in `copies`/<number> at each
    `every`th of its file operations (0: at none), and in `copies`/step-<step> in the middle of the step that follows each of `steps`, if
    there is one. Returns the operations.
    """
    copies.mkdir(parents=True)
    arguments = {"settings": settings, "copy_after": {str(step): str(copies / f"step-{step}") for step in steps}}
    mode = "copy" if every else "count"
    outcome = server.run(Case(scenario, arguments, settings["output_dir"], mode, every, str(copies)))
    assert outcome.code == 0, outcome.output
    return outcome.operations


def states(copies: Path) -> dict[str, Path]:
    """What `copied` has left, in the order of the operations, the steps last."""
    found = sorted((not path.name.isdigit(), len(path.name), path.name) for path in copies.iterdir())
    return {name: copies / name for *_, name in found}

"""What the resume tests share: a tiny workspace, and what must be bit-identical at the end of a run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness.killing import KILLED, Case, Outcome, Server, digest
from tests.harness.tiny import write_model, write_rows

LAST = ("optimizer.safetensors", "optimizer.json", "scheduler.json", "random-0.json", "adapter_model.safetensors", "model.safetensors")
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
    weights = "adapter_model.safetensors" if (output_dir / "adapter_model.safetensors").exists() else "model.safetensors"
    state = json.loads((last / "train_state.json").read_text())
    state.pop("elapsed_s")
    state["log_history"] = [
        {name: value for name, value in entry.items() if not name.endswith(TIMES)} for entry in state["log_history"]]
    present = [name for name in LAST if (last / name).exists()]
    return {"final": digest(output_dir, [weights]), "last": digest(last, present), "name": last.name, "state": state}


def killed_and_resumed(server: Server, scenario: str, settings: dict[str, str], mode: str, at: int) -> tuple[Outcome, Outcome]:
    """Run killed at operation `at`, then run again. If nothing was left to kill, the first run simply ends well."""
    output_dir = settings["output_dir"]
    first = server.run(Case(scenario, {"settings": settings}, output_dir, mode, at))
    assert first.code in (0, KILLED), first.output
    return first, server.run(Case(scenario, {"settings": settings}, output_dir))

"""What runs of the self-test have in common: a tiny model with rows, and what must be bit-identical at their ends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunewright.selftest.pairs import write_pairs
from tunewright.selftest.tiny import write_model, write_rows

LAST: Final = ("optimizer.safetensors", "optimizer.json", "scheduler.json", "random-0.json", "random-1.json", "random-2.json",
               "adapter_model.safetensors", "model.safetensors", "value_head.safetensors")
FINAL: Final = ("adapter_model.safetensors", "model.safetensors", "value_head.safetensors")
TIMES: Final = ("runtime", "per_second")
REWARDS: Final = '''"""Rewards of answers."""


def share(completions, **columns):
    """The share of the letter a."""
    return [text.count("a") / max(len(text), 1) for text in completions]
'''


@dataclass(frozen=True, slots=True)
class Workspace:
    """A tiny model, rows to train on and rows to evaluate, pairs of answers, and a reward."""

    path: Path

    @classmethod
    def make(cls, path: Path) -> Workspace:
        """22 rows in batches of 4: an epoch of six micro-batches whose last has two rows."""
        write_model(path / "model")
        write_rows(path / "rows.jsonl", 22)
        write_rows(path / "held_out.jsonl", 5, seed=1)
        write_pairs(path / "pairs.jsonl", 22)
        (path / "rewards.py").write_text(REWARDS, encoding="utf-8")
        return cls(path)

    def settings(self, output_dir: Path, **changes: Any) -> dict[str, str]:
        """Two epochs of LoRA with a checkpoint every third step, the oldest rotated away."""
        chosen = {
            "model_name_or_path": self.path / "model", "dataset": self.path / "rows.jsonl", "output_dir": output_dir,
            "num_train_epochs": 2, "save_steps": 3, "save_total_limit": 2, "logging_steps": 2, "learning_rate": 0.01,
            "data_cache_dir": "none", "plot_loss": False, "disable_tqdm": True, **changes}
        return {name: as_text(value) for name, value in chosen.items()}


def as_text(value: Any) -> str:
    """A value as a command line has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def results(output_dir: Path) -> dict[str, Any]:
    """The final weights; optimizer, schedule, random numbers and position of the last checkpoint; every logged number but times."""
    last = max(output_dir.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    state = json.loads((last / "train_state.json").read_text(encoding="utf-8"))
    state.pop("elapsed_s")
    state["log_history"] = [
        {name: value for name, value in entry.items() if not name.endswith(TIMES)} for entry in state["log_history"]]
    return {"final": _digests(output_dir, FINAL), "last": _digests(last, LAST), "name": last.name, "state": state}


def differing(one: Path, other: Path) -> str:
    """What is not the same at the ends of two runs, in one line; empty where they are bit-identical."""
    return unlike(results(one), results(other))


def unlike(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """What is not the same in two `results`, in one line."""
    parts = [f"{name} {key}" if isinstance(expected[name], dict) else name for name in expected
             for key in (sorted({*found[name], *expected[name]}) if isinstance(expected[name], dict) else [""])
             if (found[name].get(key) != expected[name].get(key) if key else found[name] != expected[name])]
    return f"not the same as in a straight run: {', '.join(parts)}" if parts else ""


def _digests(directory: Path, names: tuple[str, ...]) -> dict[str, str]:
    return {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in names if (directory / name).exists()}

"""Result files: `<split>_results.json`, `all_results.json`, `trainer_state.json`, under the names other tools read."""

from __future__ import annotations

import json
import math
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright import durable
from tunewright.engine.metrics import Metrics, speed
from tunewright.errors import StorageError


@dataclass(frozen=True, slots=True)
class TrainFigures:
    """What a training run amounts to, interruptions left out."""

    loss: float
    runtime_s: float
    samples: int
    steps: int
    tokens: int
    epoch: float

    def metrics(self) -> Metrics:
        """Under Hugging Face's names, with tokens and peak memory besides."""
        return {
            "epoch": self.epoch,
            "train_loss": self.loss,
            **speed("train", self.runtime_s, self.samples, self.steps),
            "train_tokens_per_second": round(self.tokens / max(self.runtime_s, 1e-9), 3),
            "total_tokens": self.tokens,
            "peak_memory_gb": peak_memory_gb(),
        }


def peak_memory_gb() -> float:
    """Most memory this process has had, in GB (10^9 bytes): of its GPUs together if it used any, else of the machine."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        peak = float(sum(torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count())))
        return round(peak / 1e9, 3)
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 3)


def write_results(output_dir: Path, split: str, metrics: Mapping[str, Any]) -> None:
    """Write `<split>_results.json` and merge the same into `all_results.json`; keys sorted, numbers that are not finite as null."""
    clean = {name: _jsonable(value) for name, value in metrics.items()}
    write_json(output_dir / f"{split}_results.json", clean)
    everything = output_dir / "all_results.json"
    write_json(everything, {**_read(everything), **clean})


def write_trainer_state(output_dir: Path, state: Mapping[str, Any]) -> None:
    """Write `trainer_state.json` (global_step, epoch, max_steps, best_metric, log_history, ...); keys of an older file that
    `state` does not have stay."""
    path = output_dir / "trainer_state.json"
    write_json(path, {**_read(path), **{name: _jsonable(value) for name, value in state.items()}})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with sorted keys so that a reader sees the old file or the new one. Raises StorageError if the disk refuses."""
    with durable.storage_errors(path.parent, durable.SMALL):
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.write_json(path, dict(sorted(content.items())))


def _read(path: Path) -> dict[str, Any]:
    """The object in a file, or an empty one if there is none yet."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StorageError(f"is not JSON: {error}", where=str(path), mend="move it away") from error
    return content if isinstance(content, dict) else {}


def _jsonable(value: Any) -> Any:
    """Replace numbers that are not finite by None, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _jsonable(one) for name, one in value.items()}
    return [_jsonable(one) for one in value] if isinstance(value, list | tuple) else value

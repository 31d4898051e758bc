"""Where metrics are written during a run: the JSONL log, always, and the trackers the user names."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from tunewright.durable import SMALL, storage_errors
from tunewright.engine.progress import Position, clock
from tunewright.errors import missing_package
from tunewright.registry import Entry, Registry

if TYPE_CHECKING:
    from tunewright.config.checkpoints import LoggingConfig
    from tunewright.runtime import Ranks

LOG_NAME: Final = "trainer_log.jsonl"

_JSONL_NAMES: Final = {"learning_rate": "lr", "eval_accuracy": "accuracy"}
"""Metric names that LLaMA-Factory's log spells differently."""


class Tracker(Protocol):
    """Receives the metrics of each logged step."""

    def log(self, position: Position, metrics: Mapping[str, float]) -> None:
        """Write the metrics of `position.step`."""
        ...

    def close(self) -> None:
        """Finish writing."""
        ...


TRACKERS: Final = Registry("tracker", (
    Entry("console", "tunewright.engine.trackers:ConsoleTracker", "One line of JSON for each logged step on standard output."),
    Entry("tensorboard", "tunewright.engine.trackers:TensorBoardTracker", "TensorBoard event files.", extra="tensorboard"),
))
"""What `report_to` may name; each entry is a class of (directory, step that the run continues after)."""


class JsonlTracker:
    """One JSON object per logged step, under the field names of LLaMA-Factory's log."""

    def __init__(self, path: Path, resumed_step: int) -> None:
        """Go on with the file of an interrupted run: what it logged after `resumed_step` will be logged again, so it goes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        _forget_after(path, resumed_step)
        self._file = path.open("a", encoding="utf-8")

    def log(self, position: Position, metrics: Mapping[str, float]) -> None:
        """Append one line and hand it to the system."""
        self._file.write(json.dumps(log_entry(position, metrics), allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def log_entry(position: Position, metrics: Mapping[str, float]) -> dict[str, Any]:
    """The JSONL object of one logged step. A number that is not finite becomes null, which every JSON reader takes."""
    named = {_JSONL_NAMES.get(name, name): _finite(value) for name, value in metrics.items() if name not in ("epoch", "step")}
    return {
        "current_steps": position.step,
        "total_steps": position.total_steps,
        **named,
        "epoch": round(position.epoch, 6),
        "percentage": round(100 * position.step / position.total_steps, 2) if position.total_steps else 100.0,
        "elapsed_time": clock(position.elapsed_s),
        "remaining_time": clock(position.remaining_s),
        "throughput": round(position.tokens_per_second, 2),
        "total_tokens": position.total_tokens,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _forget_after(path: Path, step: int) -> None:
    """Drop the entries after `step`, and a last line that a kill left half-written. The file is replaced in one move."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    kept = [line for line in lines if _step_of(line) is not None and (_step_of(line) or 0) <= step]
    if kept == lines:
        return
    fresh = path.with_name(path.name + ".new")
    fresh.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    os.replace(fresh, path)


def _step_of(line: str) -> int | None:
    """The step of an entry, or None for a line that is not a whole entry."""
    try:
        return int(json.loads(line)["current_steps"])
    except (ValueError, KeyError, TypeError):
        return None


class ConsoleTracker:
    """The entries of the JSONL log on standard output, which nothing else of a training run writes to."""

    def __init__(self, directory: Path, resumed_step: int) -> None:
        """Nothing is opened."""

    def log(self, position: Position, metrics: Mapping[str, float]) -> None:
        """Print one line."""
        print(json.dumps(log_entry(position, metrics), allow_nan=False), flush=True)

    def close(self) -> None:
        """Nothing is closed."""


class TensorBoardTracker:
    """TensorBoard scalars: `train/...` and `eval/...`. The only importer of tensorboard."""

    def __init__(self, directory: Path, resumed_step: int) -> None:
        """Raises InputError, with the install command, if tensorboard is missing."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing_package("tensorboard", feature="TensorBoard", parameter="report_to", extra="tensorboard") from error
        self._writer: Any = SummaryWriter(str(directory), purge_step=resumed_step + 1)

    def log(self, position: Position, metrics: Mapping[str, float]) -> None:
        """Write each metric as a scalar; `eval_x` goes under `eval/x`."""
        for name, value in metrics.items():
            tag = f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"
            self._writer.add_scalar(tag, value, position.step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class Trackers:
    """Several trackers as one."""

    def __init__(self, trackers: Sequence[Tracker], directory: Path) -> None:
        """`directory` is named where the disk refuses."""
        self._trackers = tuple(trackers)
        self._directory = directory

    def log(self, position: Position, metrics: Mapping[str, float]) -> None:
        """Write to each; raises StorageError if the disk refuses."""
        with storage_errors(self._directory, SMALL):
            for tracker in self._trackers:
                tracker.log(position, metrics)

    def close(self) -> None:
        """Close each; raises StorageError if the disk refuses what was still to be written."""
        with storage_errors(self._directory, SMALL):
            for tracker in self._trackers:
                tracker.close()


def open_trackers(logging: LoggingConfig, output_dir: Path, ranks: Ranks, resumed_step: int) -> Trackers:
    """The JSONL log in `output_dir` and the trackers of `report_to`, on the main rank; none on the others.

    `resumed_step` is the step the run continues after, 0 for a fresh run.
    """
    if not ranks.is_main:
        return Trackers((), output_dir)
    trackers: list[Tracker] = [JsonlTracker(output_dir / LOG_NAME, resumed_step)]
    directory = Path(logging.logging_dir).expanduser() if logging.logging_dir else output_dir / "runs"
    if logging.run_name:
        directory = directory / logging.run_name.replace("/", "_")
    for name in logging.report_to:
        if name != "none":
            trackers.append(TRACKERS.load(name)(directory, resumed_step))
    return Trackers(trackers, output_dir)

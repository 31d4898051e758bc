"""The JSONL log, TensorBoard and the progress display. Oracle: whole entries written out by hand; tensorboard's own reader."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest

from tunewright.config.checkpoints import LoggingConfig
from tunewright.engine.progress import LiveLine, NotesOnly, PlainLines, Position, Silent, clock, open_display
from tunewright.engine.trackers import TRACKERS, log_entry, open_trackers
from tunewright.errors import StorageError
from tunewright.runtime import Ranks


def position(step: int, total: int = 40) -> Position:
    return Position(step, total, epoch=step / 20, elapsed_s=2.0 * step, first_step=0, tokens=100 * step, total_tokens=100 * step)


def test_position_figures() -> None:
    """Resumed at step 10, now at 15 of 40 after 20 s: 4 s a step, 25 left; 500 tokens of this process in 20 s."""
    resumed = Position(15, 40, 0.75, 20.0, first_step=10, tokens=500, total_tokens=1500)
    assert (resumed.remaining_s, resumed.tokens_per_second) == (100.0, 25.0)
    fresh = Position(0, 40, 0.0, 0.0, 0, 0, 0)
    assert (fresh.remaining_s, fresh.tokens_per_second) == (0.0, 0.0)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01"), (93784, "1 day, 2:03:04")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_log_entry_has_llamafactorys_fields() -> None:
    assert log_entry(position(10), {"loss": 1.5, "grad_norm": math.inf, "learning_rate": 1e-4, "epoch": 0.5}) == {
        "current_steps": 10, "total_steps": 40, "loss": 1.5, "grad_norm": None, "lr": 1e-4, "epoch": 0.5, "percentage": 25.0,
        "elapsed_time": "0:00:20", "remaining_time": "0:01:00", "throughput": 50.0, "total_tokens": 1000}
    evaluation = log_entry(position(10), {"eval_loss": 2.0, "eval_accuracy": 0.5})
    assert (evaluation["eval_loss"], evaluation["accuracy"]) == (2.0, 0.5)


def entries(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]


def write(folder: Path, resumed: int, steps: range, loss: float = 1.0) -> None:
    trackers = open_trackers(LoggingConfig(), folder, Ranks(), resumed)
    for step in steps:
        trackers.log(position(step), {"loss": loss})
    trackers.close()


def test_a_resumed_log_has_each_step_once(tmp_path: Path) -> None:
    """Interrupted after step 7 with a checkpoint at 5: entries 6 and 7 give way to the new ones."""
    write(tmp_path, 0, range(1, 8))
    write(tmp_path, 5, range(6, 9), loss=2.0)
    assert [(entry["current_steps"], entry["loss"]) for entry in entries(tmp_path)] == [
        (1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (5, 1.0), (6, 2.0), (7, 2.0), (8, 2.0)]


def test_a_line_cut_by_a_kill_is_dropped(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 3))
    file = tmp_path / "trainer_log.jsonl"
    file.write_text(file.read_text() + '{"current_steps": 3, "lo')
    write(tmp_path, 2, range(3, 4))
    assert [entry["current_steps"] for entry in entries(tmp_path)] == [1, 2, 3]


def test_a_fresh_run_starts_a_fresh_log(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 4))
    write(tmp_path, 0, range(1, 2))
    assert [entry["current_steps"] for entry in entries(tmp_path)] == [1]


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    trackers = open_trackers(LoggingConfig(report_to=("tensorboard",)), tmp_path, Ranks(1, 2), 0)
    trackers.log(position(1), {"loss": 1.0})
    trackers.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    trackers = open_trackers(LoggingConfig(), tmp_path, Ranks(), 0)
    with io.FileIO("/dev/full", "w") as full:
        trackers._trackers[0]._file = io.TextIOWrapper(io.BufferedWriter(full, 1), write_through=True)  # type: ignore[attr-defined]
        with pytest.raises(StorageError, match=r"cannot write \(No space left on device\): 1.0 MB needed, .* free; make room"):
            trackers.log(position(1), {"loss": 1.0})


def test_declared_trackers_exist() -> None:
    from dataclasses import fields

    declared = next(field for field in fields(LoggingConfig) if field.name == "report_to").metadata["param"].choices
    assert set(declared) == {*TRACKERS.names(), "none"}


@pytest.mark.effect("run_name")
def test_tensorboard_scalars(tmp_path: Path) -> None:
    """Oracle: tensorboard's own event reader; after a resume a step is there once, with its new value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for resumed, loss in ((0, 1.0), (1, 2.0)):
        trackers = open_trackers(LoggingConfig(report_to=("tensorboard",), run_name="a/b"), tmp_path, Ranks(), resumed)
        for step in range(resumed + 1, 3):
            trackers.log(position(step), {"loss": loss * step, "eval_loss": 0.5})
        trackers.close()
    events = EventAccumulator(str(tmp_path / "runs" / "a_b"))
    events.Reload()
    assert [(one.step, one.value) for one in events.Scalars("train/loss")] == [(1, 1.0), (2, 4.0)]
    assert [one.value for one in events.Scalars("eval/loss")] == [0.5, 0.5]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_display_fits_the_stream() -> None:
    assert isinstance(open_display(disabled=False, is_main=True, stream=Terminal()), LiveLine)
    assert isinstance(open_display(disabled=False, is_main=True, stream=io.StringIO()), PlainLines)
    assert isinstance(open_display(disabled=True, is_main=True, stream=Terminal()), NotesOnly)
    assert isinstance(open_display(disabled=False, is_main=False, stream=Terminal()), Silent)


def test_plain_lines_come_at_intervals_and_at_the_end() -> None:
    """Seconds 0, 1, 2, ... with an interval of 3: steps 1 and 4 of 6 are due, and the last."""
    moments = iter(range(100))
    stream = io.StringIO()
    lines = PlainLines(stream, interval_s=3, now=lambda: float(next(moments)))
    for step in range(1, 7):
        lines.update(position(step, total=6), 1.25)
    assert stream.getvalue().splitlines() == [
        "step 1/6  epoch 0.05  loss 1.2500  50 tokens/s  0:00:02 gone, 0:00:10 left",
        "step 4/6  epoch 0.20  loss 1.2500  50 tokens/s  0:00:08 gone, 0:00:04 left",
        "step 6/6  epoch 0.30  loss 1.2500  50 tokens/s  0:00:12 gone, 0:00:00 left"]


def test_live_line_shows_the_figures() -> None:
    stream = Terminal()
    line = LiveLine(stream)
    line.update(position(10), 1.25)
    line.note("[saved] checkpoint-10")
    line.update(position(40), 0.5)
    line.close()
    text = stream.getvalue()
    assert "[saved] checkpoint-10" in text and "step 40/40" in text and "loss 0.5000" in text and "50 tokens/s" in text

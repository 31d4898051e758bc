"""What the user sees while a run goes on: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import TaskID

PLAIN_INTERVAL_S = 30.0
"""Seconds between two plain lines at least; a log file is read afterwards."""
REFRESH_PER_S = 4.0
"""Redraws per second of the live line, done in a thread of its own."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands. `first_step`, `elapsed_s` and `tokens` of this process (a resume starts anew); `epoch` as a fraction."""

    step: int
    total_steps: int
    epoch: float
    elapsed_s: float
    first_step: int
    tokens: int
    total_tokens: int

    @property
    def remaining_s(self) -> float:
        """Time left at the pace so far; 0 before the first step."""
        done = self.step - self.first_step
        return (self.total_steps - self.step) * self.elapsed_s / done if done > 0 else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Throughput of this process's part of the run, over all ranks."""
        return self.tokens / self.elapsed_s if self.elapsed_s > 0 else 0.0


def clock(seconds: float) -> str:
    """h:mm:ss, with days in front where there are any: 93784 -> `1 day, 2:03:04`."""
    from datetime import timedelta

    return str(timedelta(seconds=round(seconds)))


class Display(Protocol):
    """Shows the run. Every method returns at once."""

    def update(self, position: Position, loss: float) -> None:
        """Show where the run stands after a step."""
        ...

    def note(self, message: str) -> None:
        """Print a line above what is shown."""
        ...

    def close(self) -> None:
        """Leave the last state on the screen."""
        ...


def open_display(*, disabled: bool, is_main: bool, stream: TextIO | None = None) -> Display:
    """A live line if `stream` (standard error) is a terminal, plain lines if not, only notes if disabled, nothing on other ranks."""
    out = stream or sys.stderr
    if not is_main:
        return Silent()
    if disabled:
        return NotesOnly(out)
    return LiveLine(out) if out.isatty() else PlainLines(out)


class Silent:
    """Shows nothing."""

    def update(self, position: Position, loss: float) -> None:
        """Nothing."""

    def note(self, message: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class NotesOnly:
    """Shows no progress, but what must be told."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def update(self, position: Position, loss: float) -> None:
        """Nothing."""

    def note(self, message: str) -> None:
        """Print the message."""
        print(message, file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing is open."""


class PlainLines:
    """A line for the first step, the last, and every `interval_s` between."""

    def __init__(self, stream: TextIO, interval_s: float = PLAIN_INTERVAL_S, now: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._interval_s, self._now = stream, interval_s, now
        self._next = now()

    def update(self, position: Position, loss: float) -> None:
        """Print the line if it is time, or if this is the last step."""
        moment = self._now()
        if moment < self._next and position.step < position.total_steps:
            return
        self._next = moment + self._interval_s
        self.note(
            f"step {position.step}/{position.total_steps}  epoch {position.epoch:.2f}  loss {loss:.4f}  "
            f"{position.tokens_per_second:,.0f} tokens/s  {clock(position.elapsed_s)} gone, {clock(position.remaining_s)} left")

    def note(self, message: str) -> None:
        """Print the message."""
        print(message, file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing is open."""


class LiveLine:
    """One line that redraws itself: bar, step, loss, tokens/s, time left."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress: Any = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"), BarColumn(bar_width=None), TextColumn("{task.fields[figures]}"),
            console=Console(file=stream), refresh_per_second=REFRESH_PER_S)
        self._task: TaskID | None = None

    def update(self, position: Position, loss: float) -> None:
        """Set the figures; the drawing happens in the display's own thread."""
        figures = (f"loss {loss:.4f}  {position.tokens_per_second:,.0f} tokens/s  "
                   f"{clock(position.elapsed_s)} gone, {clock(position.remaining_s)} left")
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task("", total=position.total_steps, figures=figures)
        self._progress.update(self._task, completed=position.step, figures=figures)

    def note(self, message: str) -> None:
        """Print the message above the line, as it is."""
        self._progress.console.print(message, markup=False, highlight=False)

    def close(self) -> None:
        """Draw once more and stop."""
        self._progress.stop()

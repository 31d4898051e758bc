"""Signals become a flag that the loop reads at the end of a step; the ranks agree on it there, so all stop at the same step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from tunewright.errors import Interrupted

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""All three mean: save and end. SIGUSR1 is what batch schedulers send ahead of the end of the time slot."""


@dataclass(slots=True)
class StopRequest:
    """Whether this process was asked to stop. `name` is the first signal that asked.

    While the loop runs, a signal is only noted, for the loop to act on. Before and after it there is nothing to save, and a signal
    ends the process at once; `phase` then says when that is, in words.
    """

    name: str | None = None
    interrupts: int = 0
    phase: str | None = None

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self.name is not None

    def end_at_once(self, phase: str) -> None:
        """From here on a signal ends the process. Raises Interrupted if one was noted and not acted on."""
        self.phase = phase
        if self.requested:
            raise self._stopped()

    def defer(self) -> None:
        """From here on a signal waits for the loop."""
        self.phase = None

    def receive(self, number: int, _frame: FrameType | None = None) -> None:
        """Note a signal. Raises Interrupted at the second SIGINT: the user does not want to wait for the checkpoint."""
        self.name = self.name or signal.Signals(number).name
        if self.phase is not None:
            raise self._stopped()
        self.interrupts += number == signal.SIGINT
        if number == signal.SIGINT and self.interrupts > 1:
            raise Interrupted("interrupted twice; the run stopped without saving",
                              mend="start again to continue from the last checkpoint")

    def _stopped(self) -> Interrupted:
        return Interrupted(f"stopped by {self.name} {self.phase}", mend="run the same command again")


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Listen for the stop signals during the block, and put the former handlers back after it.

    Python runs handlers in the main thread only; in another thread the request stays unset.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.receive) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

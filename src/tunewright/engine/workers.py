"""Data-loader workers under watch: of one that dies or hangs it is told which rows it was at.

A worker writes down what it is at in memory that it shares with its rank. The rank reads it when torch says that a worker was lost, or
has not answered for too long.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.utils.data import get_worker_info

from tunewright.engine.health import ROWS_NAMED
from tunewright.errors import LostRankError, TunewrightError

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from torch.utils.data import DataLoader

_PID, _COUNT, _READ, _ROWS = range(4)
"""Columns: its process, how many rows it makes something of (0: it waits), which of them it reads (-1: none), the first of them."""
_SET_DEATH_SIGNAL: Final = 1
_PATIENCE_S: Final = 5.0
_DIED: Final = re.compile(r"DataLoader worker \(pid\(?s?\)? (?P<pid>\d+)")
_TIMED_OUT: Final = re.compile(r"DataLoader timed out after (?P<seconds>\d+)")
_NO_MORE: Final = object()
_UNDER_WATCH: Final[list[WorkerWatch]] = []
"""Of this process: torch tells of a worker that died wherever the process happens to be. An error there closes the loop that the batches
are for, and with it `watched`, before anybody is asked which worker it was: a watch stays until another begins."""


class WorkerWatch:
    """What each worker of a loader is at. `origin` names a row by its number; without workers, this process is watched instead."""

    def __init__(self, workers: int, origin: Callable[[int], object]) -> None:
        self._at = torch.zeros((max(1, workers), _ROWS + ROWS_NAMED), dtype=torch.int64)
        if workers:
            self._at.share_memory_()  # type: ignore[no-untyped-call]
        self._origin = origin
        self._workers = workers
        self._processes: set[BaseProcess] = set()
        self.is_over = False

    def start(self, number: int) -> None:
        """In worker `number`: the process is this one."""
        self._at[number, _PID] = multiprocessing.current_process().pid or 0

    def begin(self, rows: Sequence[int]) -> None:
        """In a worker: something is made of these rows."""
        mine = self._mine()
        named = rows[:ROWS_NAMED]
        mine[_ROWS : _ROWS + len(named)] = torch.tensor(named, dtype=torch.int64)
        mine[_READ] = -1
        mine[_COUNT] = len(rows)

    def reads(self, row: int) -> None:
        """In a worker: this one of them is read; -1: all are."""
        self._mine()[_READ] = row

    def done(self) -> None:
        """In a worker: it is made."""
        self._mine()[_COUNT] = 0

    def failed(self, error: Exception) -> Exception:
        """In a worker: the error for its rank to raise. What can only be a defect says which rows it came with."""
        if isinstance(error, TunewrightError | OSError | MemoryError):
            return error
        info = get_worker_info()
        who, place = ("this process", 0) if info is None else (self._name(info.id), info.id)
        return RuntimeError(f"{type(error).__name__}: {error}; {who} failed {self._doing(place)}")

    def lost(self, error: RuntimeError, received: int | None = None) -> LostRankError | None:
        """In the rank: what torch told, in words that name worker and rows; None if it is not about a worker of this watch. `received`:
        batches so far, which decides the worker that the next one is awaited from."""
        told = str(error)
        if received is not None and (late := _TIMED_OUT.search(told)):
            place = received % self._workers
            return LostRankError(f"{self._name(place)} has not answered for {late['seconds']} s; it stopped {self._doing(place)}",
                                 mend="look at the row and at the disk it is on, or set a larger dataloader_timeout_s; start again to "
                                      "continue from the last checkpoint")
        died = _DIED.search(told)
        process = next((one for one in self._processes if died is not None and one.pid == int(died["pid"])), None)
        if process is None:
            return None
        process.join(_PATIENCE_S)
        code, pids = process.exitcode, self._at[:, _PID].tolist()
        if process.pid not in pids:
            return LostRankError(f"a data-loader worker {_how(code)} before it began", mend=_mend(code))
        place = pids.index(process.pid)
        return LostRankError(f"{self._name(place)} {_how(code)} {self._doing(place)}", mend=_mend(code))

    def started(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """In the rank: what the loader gives, with the workers that are started for it under watch."""
        before = set(multiprocessing.active_children())
        try:
            return iter(loader)
        finally:
            self._processes = set(multiprocessing.active_children()) - before

    def end(self) -> None:
        """In the rank: end those workers that torch could not end: they do not listen to SIGTERM, which is for the rank to act on, and
        the interpreter would wait for them for ever."""
        self.is_over = True
        left = [process for process in self._processes if process.is_alive()]
        if not left:
            return
        in_main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if in_main else None  # torch would tell of each as of one that died
        for process in left:
            process.kill()
            process.join(_PATIENCE_S)
        if in_main:
            signal.signal(signal.SIGCHLD, before)

    def _mine(self) -> torch.Tensor:
        info = get_worker_info()
        return self._at[0 if info is None else info.id]

    def _name(self, place: int) -> str:
        return f"data-loader worker {place} of {self._workers}"

    def _doing(self, place: int) -> str:
        _, count, read, *rows = self._at[place].tolist()
        if not count:
            return "between two batches"
        if read >= 0:
            return f"while it read {self._origin(read)}"
        named = ", ".join(str(self._origin(row)) for row in rows[:count])
        return f"while it made a batch of {named}" + (f" and {count - ROWS_NAMED} more" if count > ROWS_NAMED else "")


def watched(loader: DataLoader[Any], watch: WorkerWatch) -> Iterator[Any]:
    """What the loader gives. Raises LostRankError for a worker that died or hangs, and the error that a worker gives for its batch."""
    if not loader.num_workers:
        yield from loader
        return
    _UNDER_WATCH[:] = [*(one for one in _UNDER_WATCH if not one.is_over), watch]
    items: Iterator[Any] | None = None
    received = 0
    try:
        items = watch.started(loader)
        while (item := _answer(items, loader.timeout)) is not _NO_MORE:
            if isinstance(item, Exception):
                raise item
            received += 1
            yield item
    except RuntimeError as error:
        lost = watch.lost(error, received)
        if lost is None:
            raise
        raise lost from error
    finally:
        items = None  # torch ends the workers that still listen
        watch.end()


def _answer(items: Iterator[Any], timeout_s: float) -> Any:
    """The next item, or `_NO_MORE`. Torch bounds the wait for word of a batch, but not for the memory that it is in, which the worker has
    to hand over: one that stops in between is timed out here, in torch's words."""
    if not timeout_s or threading.current_thread() is not threading.main_thread():
        return next(items, _NO_MORE)

    def raise_late(number: int, frame: object) -> None:
        raise RuntimeError(f"DataLoader timed out after {timeout_s:g} seconds")

    before = signal.signal(signal.SIGALRM, raise_late)
    signal.setitimer(signal.ITIMER_REAL, timeout_s + _PATIENCE_S)
    try:
        return next(items, _NO_MORE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def lost_workers_named() -> Iterator[None]:
    """Turn what torch raises on the death of a worker, wherever the process is at that moment, into LostRankError."""
    try:
        yield
    except RuntimeError as error:
        found = [lost for watch in _UNDER_WATCH if (lost := watch.lost(error)) is not None]
        if not found:
            raise
        raise found[0] from error


def end_with_rank() -> None:
    """In a worker: let the rank decide on a signal that was sent to all of its processes, and die when the rank dies."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, int(signal.SIGKILL))


def _how(code: int | None) -> str:
    """`was killed by SIGKILL`: what an exit code says, a negative one being that of a signal."""
    if code is None or code >= 0:
        return "ended unexpectedly" if code is None else f"ended with exit code {code}"
    return "was killed by " + next((one.name for one in signal.Signals if one == -code), f"signal {-code}")


def _mend(code: int | None) -> str:
    again = "start again to continue from the last checkpoint"
    if code == -signal.SIGBUS:
        return f"give it more shared memory (/dev/shm), or lower dataloader_num_workers; {again}"
    if code == -signal.SIGKILL:
        return f"if memory ran out, lower dataloader_num_workers or dataloader_prefetch_factor; {again}"
    return again

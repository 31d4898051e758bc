"""Limits of time and memory on renders of chat templates.

The sandbox of transformers keeps a template from reaching Python, not from using up the machine: two nested
`range(99999)` run for minutes. So a template that is not ours is rendered once, before it is used, in a child process where it can be
killed; and every later render, of whatever rows, is watched: a template may behave until its fifth turn, or until a word comes.
What one operation may make is bounded in `template_sandbox`.
"""

from __future__ import annotations

import atexit
import os
import resource
import select
import signal
import threading
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import TypeVar

from tunewright.errors import refuse

T = TypeVar("T")

CPU_SECONDS = 2
WALL_SECONDS = 10
MEMORY_BYTES = 512 * 1024**2
RENDER_CPU_SECONDS = 5
"""For one conversation; those of people take milliseconds."""
_TICK_SECONDS = 0.1


class RenderLimit(BaseException):
    """A render was stopped; `what` it needed. Not an Exception: nothing that a template does may catch it."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def watched(render: Callable[[], T]) -> T:
    """What `render` returns, with at most 5 s of this thread's CPU time and 512 MB more memory than the process had.

    The clock of the CPU interrupts ten times a second while there are renders; it is wound up once for many of them, because they take
    less than a millisecond. Interrupts reach the main thread alone, so that elsewhere nothing is watched. Raises `RenderLimit`.
    """
    if threading.current_thread() is not threading.main_thread():
        return render()
    watch = _watch()
    watch.renders += 1
    watch.is_rendering = True
    if not watch.is_wound_up:
        watch.wind_up()
    try:
        return render()
    finally:
        watch.is_rendering = False


class Watch:
    """What runs at each tick: the first in a render notes where it stands, later ones compare. One between renders stops the clock."""

    def __init__(self) -> None:
        self.renders = 0
        self.is_rendering = False
        self.is_wound_up = False
        self.noted = 0
        self.begun = (0.0, 0)

    def wind_up(self) -> None:
        """Start the clock."""
        self.is_wound_up = True
        signal.setitimer(signal.ITIMER_PROF, _TICK_SECONDS, _TICK_SECONDS)

    def stop(self) -> None:
        """Stop the clock; a child that is forked off has none of its own yet."""
        self.is_wound_up = False
        signal.setitimer(signal.ITIMER_PROF, 0)

    def __call__(self, signal_number: int, frame: FrameType | None) -> None:
        """Stop a render that is beyond its limits. The time is this thread's: others may be busy with something else."""
        if not self.is_rendering:
            self.stop()
            return
        now = (time.thread_time(), _resident_bytes())
        if self.noted != self.renders:
            self.noted, self.begun = self.renders, now
            return
        if now[0] - self.begun[0] > RENDER_CPU_SECONDS:
            raise RenderLimit(f"more than {RENDER_CPU_SECONDS} s")
        if now[1] - self.begun[1] > MEMORY_BYTES:
            raise RenderLimit(f"more than {MEMORY_BYTES // 1024**2} MB")


@cache
def _watch() -> Watch:
    """The watch of this process, from now on called at every tick of the CPU's clock."""
    watch = Watch()
    signal.signal(signal.SIGPROF, watch)
    os.register_at_fork(after_in_child=watch.stop)
    atexit.register(watch.stop)  # Python takes its handlers away at the end; a tick would then kill the process.
    return watch


def _resident_bytes() -> int:
    """Memory of this process; without /proc, the most that it ever had."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def probe_under_limits(render: Callable[[], object], name: str) -> None:
    """Run `render` in a child with 2 s of CPU and 512 MB more memory than we have; refuse the template if it needs more.

    Errors that `render` itself raises are not reported here: the caller meets them again. Raises `InputError`.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads; the child renders text and exits, and takes no lock of ours.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _child(render, writer)
    os.close(writer)
    try:
        answered = bool(select.select([reader], [], [], WALL_SECONDS)[0]) and os.read(reader, 1) == b"."
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not answered:
        refuse(f"{name} needs more than {CPU_SECONDS} s or {MEMORY_BYTES // 1024**2} MB to render a short conversation",
               mend="do not use this template: it would stop any run")


def _child(render: Callable[[], object], writer: int) -> None:
    """Render, answer with one byte, and leave without running anything that belongs to the parent."""
    answer = b"."
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        if (statm := Path("/proc/self/statm")).exists():
            used = int(statm.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
        render()
    except (MemoryError, OverflowError, RecursionError):
        answer = b"!"
    except BaseException:
        # Whatever else went wrong, the template ended; nothing may travel up the stack of the parent's copy.
        answer = b"."
    finally:
        os.write(writer, answer)
        os._exit(0)

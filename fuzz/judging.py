"""What a reader may do with bytes: return, or raise one of our errors in one line; within a second and 512 MB. All else is a finding."""

from __future__ import annotations

import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from tunewright.errors import ConfigError, TunewrightError

MEMORY_BYTES: Final = 512 * 1024**2
CPU_SECONDS: Final = 1.0
HANGS_AFTER_S: Final = 20.0
"""Of CPU, so that a busy machine makes no finding."""
_SHOWN: Final = 300

One = Callable[[bytes], None]


class Hangs(BaseException):
    """Raised in a reader that does not come back; no reader catches it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a reader did that it may not: the kind, the line of code, and what was said there."""

    kind: str
    place: str
    said: str

    @property
    def key(self) -> tuple[str, str]:
        """Findings with the same key have one cause."""
        return self.kind, self.place


def judged(one: One, content: bytes, cpu_s: float = CPU_SECONDS) -> Finding | None:
    """Let a reader read; what it did wrong, or None. `cpu_s`: what it may take, once everything is imported that it needs."""
    found = _judged(one, content, cpu_s)
    return _judged(one, content, cpu_s) if found is not None and found.kind == "slow" else found


def _judged(one: One, content: bytes, cpu_s: float) -> Finding | None:
    begin = time.process_time()
    try:
        with _alarm():
            one(content)
    except TunewrightError as error:
        lines = len(str(error).splitlines())
        if lines > (len(error.problems) if isinstance(error, ConfigError) else 1):
            return Finding("several lines", _place(error), str(error)[:_SHOWN])
    except MemoryError as error:
        return Finding("memory", _place(error), f"more than {MEMORY_BYTES // 1024**2} MB")
    except Hangs as error:
        return Finding("hangs", _place(error), f"not back after {HANGS_AFTER_S:g} s of CPU")
    except Exception as error:
        return Finding(type(error).__name__, _place(error), " ".join(str(error).split())[:_SHOWN])
    took = time.process_time() - begin
    return None if took <= cpu_s else Finding("slow", "", f"{took:.1f} s of CPU")


def limit_memory() -> None:
    """From now on this process may take 512 MB more than it has."""
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))


def smaller(one: One, content: bytes, finding: Finding, cpu_s: float = CPU_SECONDS, seconds: float = 5.0) -> bytes:
    """A part of `content` with the same finding, shorter where one was found in so many seconds."""
    end = time.monotonic() + seconds
    width = max(1, len(content) // 2)
    while width and time.monotonic() < end:
        place = 0
        while place < len(content) and time.monotonic() < end:
            shorter = content[:place] + content[place + width:]
            again = judged(one, shorter, cpu_s)
            if again is not None and again.key == finding.key:
                content = shorter
            else:
                place += width
        width //= 2
    return content


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(_: int, __: FrameType | None) -> None:
        raise Hangs

    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANGS_AFTER_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _place(error: BaseException) -> str:
    """The innermost line of our own package that the error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/tunewright/" in frame.filename] or list(frames)
    last = ours[-1] if ours else None
    return "" if last is None else f"{last.filename.rpartition('/tunewright/')[2]}:{last.lineno}"

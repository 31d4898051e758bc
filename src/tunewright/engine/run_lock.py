"""One writer per output directory."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tunewright.durable import make_directory
from tunewright.errors import InputError, StorageError

LOCK: Final = ".tunewright.lock"


@contextmanager
def locked(output_dir: Path) -> Iterator[None]:
    """Hold the output directory for the length of the block.

    The lock is the kernel's (flock): it goes with the process that holds it, so a killed run leaves nothing to clean up. The
    file only says who holds it. Raises InputError naming that process if another run is at work, StorageError if the directory
    cannot be made or locked.
    """
    try:
        make_directory(output_dir)
        lock = _Lock(os.open(output_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
    except OSError as error:
        raise StorageError(f"output_dir cannot be written ({error.strerror})", where=str(output_dir),
                           mend="make it writable, or choose another output_dir") from error
    try:
        _take(lock.descriptor, output_dir)
        os.register_at_fork(after_in_child=lock.let_go)
        yield
    finally:
        lock.let_go()


@dataclass(slots=True)
class _Lock:
    """A descriptor that is closed once. The kernel's lock lives as long as any copy of it, and a forked data-loader worker has
    one: it must close its own, or a worker that outlives a killed run would keep the next one out."""

    descriptor: int

    def let_go(self) -> None:
        """Close the descriptor in this process; other processes' copies stay."""
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            with suppress(OSError):
                os.close(descriptor)


def _take(descriptor: int, output_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
    except BlockingIOError as error:
        raise InputError(f"output_dir {output_dir} is in use by {_holder(descriptor)}",
                         mend="wait for it to end, or choose another output_dir") from error
    except OSError as error:
        raise StorageError(f"cannot be locked ({error.strerror})", where=str(output_dir / LOCK),
                           mend="make room, or choose an output_dir on a file system that has locks") from error


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"

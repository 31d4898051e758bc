"""One writer per output directory."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tunewright.errors import InputError

LOCK: Final = ".tunewright.lock"


@contextmanager
def locked(output_dir: Path) -> Iterator[None]:
    """Hold the output directory for the length of the block.

    The lock is the kernel's (flock): it goes with the process that holds it, so a killed run leaves nothing to clean up. The
    file only says who holds it. Raises InputError naming that process if another run is at work.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(output_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"output_dir {output_dir} is in use by {_holder(descriptor)}",
                             mend="wait for it to end, or choose another output_dir") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError):
        return "another process"

"""A first render of a foreign template in a child process under limits of time and memory.

The sandbox of transformers keeps a template from reaching Python, not from using up the machine: two nested
`range(99999)` run for minutes. So a template that is not ours is rendered once, before it is used, where it can be killed.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

from tunewright.errors import refuse

CPU_SECONDS = 2
WALL_SECONDS = 10
MEMORY_BYTES = 512 * 1024**2


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

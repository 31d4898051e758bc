"""`tunewright env`: versions, devices and memory, for bug reports."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from tunewright import __version__
from tunewright.config.environment import VARIABLES
from tunewright.errors import UsageError

PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "datasets", "pyarrow", "pyyaml", "huggingface-hub",
            "tensorboard", "matplotlib", "rich", "gguf")

USAGE = """usage: tunewright env [--variables]

Show versions, devices, memory and the environment variables that are set; --variables lists every variable that is known, and what it
does here. Nothing secret is printed.
"""


def run(argv: list[str]) -> int:
    """Print the environment."""
    if argv and argv[0] in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return 0
    if argv not in ([], ["--variables"]):
        raise UsageError(f"env takes nothing but --variables, not {' '.join(argv)}")
    facts = list(known_variables()) if argv else [*software(), *hardware(), *accelerators(), *variables()]
    width = max(len(name) for name, _ in facts)
    sys.stdout.write("".join(f"{name:<{width}}  {value}\n" for name, value in facts))
    return 0


def software() -> Iterator[tuple[str, str]]:
    """Versions of ourselves, Python and the packages."""
    yield "tunewright", __version__
    yield "python", platform.python_version()
    yield "system", platform.platform()
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not installed"


def hardware() -> Iterator[tuple[str, str]]:
    """Cores, memory and disk."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "CPU cores", f"{usable} usable of {os.cpu_count()}"
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    yield "memory", _gigabytes(pages)
    yield "free disk", f"{_gigabytes(shutil.disk_usage('.').free)} in {os.getcwd()}"


def accelerators() -> Iterator[tuple[str, str]]:
    """What torch sees; torch is imported here."""
    try:
        import torch
    except ImportError:
        return
    yield "torch threads", str(torch.get_num_threads())
    if not torch.cuda.is_available():
        yield "accelerators", "none"
        return
    yield "CUDA", str(torch.version.cuda)
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        yield f"GPU {index}", f"{torch.cuda.get_device_name(index)}, {_gigabytes(free)} free of {_gigabytes(total)}"


def variables() -> Iterator[tuple[str, str]]:
    """The known environment variables that are set: their values, and for those without effect why."""
    for one in VARIABLES:
        if one.name in os.environ:
            value = "(set)" if one.secret else os.environ[one.name]
            yield one.name, value if one.instead is None else f"{value} (no effect: {one.instead})"


def known_variables() -> Iterator[tuple[str, str]]:
    """Every known environment variable with its meaning."""
    for one in VARIABLES:
        effect = f" Gives {one.sets} its value." if one.sets else ""
        yield one.name, f"{one.meaning}{effect}" if one.instead is None else f"{one.meaning} No effect: {one.instead}."


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"

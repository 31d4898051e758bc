"""`tunewright env`: versions, devices and memory, for bug reports."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from tunewright import __version__

PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "datasets", "pyarrow", "pyyaml", "huggingface-hub",
            "tensorboard", "matplotlib", "rich", "gguf")
VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE", "WORLD_SIZE", "TUNEWRIGHT_DEBUG")

USAGE = "usage: tunewright env\n\nShow versions, devices and memory. Nothing secret is printed.\n"


def run(argv: list[str]) -> int:
    """Print the environment."""
    if argv and argv[0] in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return 0
    facts = [*software(), *hardware(), *accelerators(), *variables()]
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
    """Environment variables that change a run."""
    for name in VARIABLES:
        if name in os.environ:
            yield name, os.environ[name]


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"

"""The machine that a step is timed for: how fast it multiplies and moves memory, and how much it has.

Of the CPU both are measured, for a tenth of a second; of a GPU they are those of its data sheet times what training reaches of them.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tunewright.planning.cards import Card, card_of

if TYPE_CHECKING:
    import torch

GIB: Final = 1 << 30
_SQUARE: Final = 768
_MEASURED_S: Final = 0.02
_SWEPT_BYTES: Final = 64 << 20
_REACHED: Final = 0.6
"""What large matrix products reach of a card's peak rate, and elementwise operations of its bandwidth: our assumption for cards that were
not measured."""
_CONTEXT_BYTES: Final = 700 << 20
"""CUDA's context with the kernels of torch and cuBLAS's workspace."""
OBJECTS_BYTES: Final = 10 << 20
"""What opening a model adds on the CPU besides tensors: modules, hooks, a tokenizer, scratch of the kernels; measured on two models of
tens of megabytes."""
_RESERVED: Final = 0.04
"""Share of what is allocated that torch's allocator for GPUs holds besides, in pieces that do not fit."""


@dataclass(frozen=True, slots=True)
class Machine:
    """`rates`: operations per second of matrix products in a number format; `bandwidth` in bytes per second; `overhead_s`: of starting
    one operation.

    `available`: bytes that this process may have in all, those that it has now included; None where nobody knows. `taken`: what it has
    before a model is there. `reserve`: share of the allocated bytes that is held besides.
    """

    name: str
    rates: Callable[[torch.dtype], float]
    bandwidth: float
    overhead_s: float
    available: int | None
    taken: int
    reserve: float = 0.0


def machine_for(*, use_cpu: bool, processes: int = 1) -> Machine:
    """The accelerator of this process, or the CPU, which all processes of this machine share."""
    import torch

    accelerator = None if use_cpu else torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None or accelerator.type != "cuda":
        return this_cpu(processes)
    place = torch.cuda.current_device()
    free, _ = torch.cuda.mem_get_info(place)
    facts = torch.cuda.get_device_properties(place)
    have = torch.cuda.memory_reserved(place)
    return of_card(card_of(facts.name, facts.multi_processor_count), free + have)


def of_card(card: Card, available: int | None = None) -> Machine:
    """The machine with a card, of whose memory `available` bytes are free; all of it if that is not said."""
    import torch

    half = card.half_tflops * 1e12 * _REACHED
    wide = card.single_tflops * 1e12 * _REACHED
    rates = {torch.bfloat16: half, torch.float16: half, torch.float64: wide / 2}
    memory = int(card.memory_gib * GIB) if available is None else available
    return Machine(card.name, lambda dtype: rates.get(dtype, wide), card.bandwidth_gbs * 1e9 * _REACHED, 4e-6, memory,
                   _CONTEXT_BYTES, _RESERVED)


def this_cpu(processes: int = 1) -> Machine:
    """The processor of this machine, with its share of the memory as it is now if several processes divide it."""
    taken, free = resident_bytes(), free_bytes()
    return Machine("CPU", _rate, _bandwidth(), 6e-6, None if free is None else free // processes + taken, taken + OBJECTS_BYTES)


@cache
def _rate(dtype: torch.dtype) -> float:
    """Products of square matrices with the threads that torch has; measured when it is first asked for, once per process."""
    import torch

    if dtype not in (torch.float32, torch.float64, torch.bfloat16):
        return _rate(torch.bfloat16 if dtype == torch.float16 else torch.float32)
    side = _SQUARE if dtype != torch.bfloat16 else _SQUARE // 2
    matrix = torch.ones(side, side, dtype=dtype)
    into = torch.empty_like(matrix)
    operations: float = 2.0 * side * side * side
    return operations / _shortest(lambda: torch.mm(matrix, matrix, out=into))


@cache
def _bandwidth() -> float:
    """Two arrays read and one written, larger than caches."""
    import torch

    one, two = torch.ones(2, _SWEPT_BYTES // 8)
    moved: int = 3 * one.numel() * one.element_size()
    return moved / _shortest(lambda: one.add_(two))


def _shortest(work: Callable[[], object]) -> float:
    """Seconds of the fastest repetition in a fiftieth of a second, the first one not counted."""
    work()
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < _MEASURED_S:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def resident_bytes() -> int:
    """Memory of this process that is in RAM now; where the system does not tell, the most it ever had."""
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        return int(statistics.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def free_bytes() -> int | None:
    """Memory that this process may still take: the system's, or what its group is allowed if that is less."""
    found = [size for size in (_system_free(), _group_free()) if size is not None]
    return min(found) if found else None


def _system_free() -> int | None:
    table = Path("/proc/meminfo")
    if not table.exists():
        return None
    lines = (line.split() for line in table.read_text().splitlines())
    return next((int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"), None)


def _group_free(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a container's limit leaves (cgroup v2); None without one. Files that were read count as used there until they are wanted for
    something else, so they are taken off."""
    limit, used, parts = root / "memory.max", root / "memory.current", root / "memory.stat"
    if not (limit.is_file() and used.is_file() and parts.is_file()) or not (said := limit.read_text().strip()).isdigit():
        return None
    cached = next((int(line.split()[1]) for line in parts.read_text().splitlines() if line.startswith("inactive_file ")), 0)
    return max(0, int(said) - int(used.read_text()) + cached)

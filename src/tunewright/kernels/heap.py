"""Free memory of the heap: kept from step to step, and given back to the system at the moment of a step that needs most.

glibc gives back what is free at the heap's end, and keeps what is freed between blocks that are in use until it is asked to give it back.
Whether a step ends with much at the end is chance; the next one then pays for fresh pages, each of which a virtual machine may have to
ask its host for. So nothing is given back by itself.

Where the embedding trains, its gradient, in most models the largest, is made when all activations are freed, and on top of what they left
behind. Given back right before it, they do not count (docs/decisions/0012).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LARGE: Final = 32 << 20
"""Bytes from which on glibc takes memory beside its heap: smaller gradients find room in what is free."""
_TRIM: Final = -1
"""glibc's number for a setting: how many free bytes at the heap's end it gives back."""
_MMAP: Final = -3
"""Its number for another: from how many bytes on a block lies beside the heap. `_LARGE` is the most, where it arrives by itself in time."""
_OF_USERS: Final = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed(model: PreTrainedModel) -> tuple[str, ...]:
    """Let a model's process on a CPU keep what is freed, and take no fresh pages for the next step; a line that says so, if it does."""
    setting = _mallopt()
    if model.device.type != "cpu" or setting is None or any(name in os.environ for name in _OF_USERS):
        return ()
    kept = setting(_MMAP, _LARGE) and setting(_TRIM, -1)
    return ("memory: what a step frees is kept for the next one",) if kept else ()


def trim_before_embedding(model: PreTrainedModel) -> tuple[str, ...]:
    """Let the backward pass give free memory back before the embedding's gradient is made; a line that says so, if it is to."""
    embedding = model.get_input_embeddings()
    weight = getattr(embedding, "weight", None)
    if not isinstance(weight, Tensor) or not weight.requires_grad or weight.device.type != "cpu" or weight.nbytes < _LARGE:
        return ()
    trim = _malloc_trim()
    if trim is None:
        return ()

    def watch(_module: nn.Module, _given: tuple[Any, ...], found: Tensor) -> None:
        if found.requires_grad:
            found.register_hook(lambda _slope: trim())

    embedding.register_forward_hook(watch)
    return ("memory: what is free is given back before the embedding's gradient is made",)


def give_back() -> None:
    """Give what is free in the heap back to the system, if the C library can: what many small blocks leave is no room for large ones."""
    trim = _malloc_trim()
    if trim is not None:
        trim()


@cache
def _malloc_trim() -> Callable[[], None] | None:
    """glibc's function; None with another C library."""
    function = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if function is None:
        return None

    def trim() -> None:
        function(ctypes.c_size_t(0))

    return trim


@cache
def _mallopt() -> Callable[[int, int], int] | None:
    """glibc's function; None with another C library."""
    return getattr(ctypes.CDLL(None), "mallopt", None)

"""Free memory of the heap, given back to the system at the moment of a step that needs most.

glibc keeps what is freed between blocks that are in use, until it is asked to give it back. Where the embedding trains, its gradient, in
most models the largest, is made when all activations are freed, and on top of what they left behind. Given back right before it, they
do not count; the next forward pass pays for fresh pages (docs/decisions/0012).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LARGE: Final = 32 << 20
"""Bytes from which on glibc takes memory beside its heap: smaller gradients find room in what is free."""


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


@cache
def _malloc_trim() -> Callable[[], None] | None:
    """glibc's function; None with another C library."""
    function = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if function is None:
        return None

    def trim() -> None:
        function(ctypes.c_size_t(0))

    return trim

"""Gradient checkpointing whose kept inputs lie in the host's memory.

Naive equivalent: checkpointing alone. A checkpointed layer keeps its input, [B, T, D], for the backward pass; here the accelerator's copy
goes as soon as the next layer has run, and a copy in page-locked host memory stays. It is made on a stream of its own while the
accelerator computes on, and fetched when the backward pass asks for it. The bits are the same, and so are the gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

if TYPE_CHECKING:
    from torch import nn

_CHECKPOINT: Final = "_gradient_checkpointing_func"
"""Where transformers keeps the function that checkpoints a layer."""


class Storage(NamedTuple):
    """Where kept tensors lie: `put` gives a token for a tensor, `fetch` the tensor for its token."""

    put: Callable[[Tensor], Any]
    fetch: Callable[[Any], Tensor]


def switch_over(model: nn.Module, storage: Storage | None = None) -> int:
    """Make every checkpointed layer of the model keep its input in `storage`, the host's memory; returns how many there are.

    transformers gives the function to the layers and to the module around them, which may be the one that calls it.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    holders = [module for module in model.modules() if module.__dict__.get(_CHECKPOINT) is not None]
    for holder in holders:
        setattr(holder, _CHECKPOINT, partial(_checkpoint, storage or HOST, holder.__dict__[_CHECKPOINT]))
    return sum(isinstance(holder, GradientCheckpointingLayer) for holder in holders)


def _checkpoint(storage: Storage, own: Callable[..., Any], function: Callable[..., Any], *arguments: Any) -> Any:
    """The layer's own checkpoint keeps tensors of its own inside, by which these hooks are not seen: only its arguments meet them."""
    with saved_tensors_hooks(storage.put, storage.fetch):
        return own(function, *arguments)


class _Parked(NamedTuple):
    """A copy in host memory, the device it came from, and when it is complete."""

    copy: Tensor
    device: torch.device
    complete: Any


def _put(tensor: Tensor) -> Tensor | _Parked:
    """A tensor that is in host memory already stays where it is."""
    return tensor if tensor.device.type in ("cpu", "meta") else _park(tensor)


def _fetch(kept: Tensor | _Parked) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    torch.get_device_module(kept.device).current_stream(kept.device).wait_event(kept.complete)
    return kept.copy.to(kept.device, non_blocking=True)


HOST: Final = Storage(_put, _fetch)


def _park(tensor: Tensor) -> _Parked:
    """Copy on the side stream once the current one has made the tensor; its memory is not given away before the copy is complete."""
    device = torch.get_device_module(tensor.device)
    side = _side_stream(tensor.device)
    side.wait_stream(device.current_stream(tensor.device))
    with device.stream(side):
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        copy.copy_(tensor, non_blocking=True)
        complete = device.Event()
        complete.record(side)
    tensor.record_stream(side)
    return _Parked(copy, tensor.device, complete)


@cache
def _side_stream(device: torch.device) -> Any:
    return torch.get_device_module(device).Stream(device)

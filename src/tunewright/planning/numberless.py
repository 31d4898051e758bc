"""Tensors on the meta device that behave as those of a CPU do, for as long as a step is run without numbers.

torch's FakeTensorMode does that too, at ten times the cost. What meta tensors miss is here: the attention kernel that torch would take,
mixed precision, and an answer where model code asks whether a mask is trivial.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint
from torch.utils._device import _device_constructors

_FLASH: Final = 1
"""`torch.nn.attention.SDPBackend.FLASH_ATTENTION`"""


class OnMeta(TorchFunctionMode):
    """While entered, tensors say that they are on a CPU and are made on the meta device, attention is the kernel that a CPU would take,
    autocast for the CPU narrows matrix products, and tests of contents fail: `if mask.all()` finds a mask that hides something, which needs
    more memory than one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self._narrowed: dict[int, tuple[Tensor, Tensor]] = {}

    def __exit__(self, *error: Any) -> None:
        self._narrowed.clear()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == _DEVICE and sys._getframe(1).f_globals.get("__name__") != checkpoint.__name__:
            return _CPU  # torch compares devices of what it recomputes, in part where this mode is off
        if func in (Tensor.__bool__, Tensor.__contains__) and args[0].is_meta:
            return False
        if func in _products() and torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            args, kwargs = tuple(self._narrow(one, dtype) for one in args), {name: self._narrow(one, dtype) for name, one in kwargs.items()}
        if func is scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        if func in _constructors() or kwargs.get("device") is not None:
            kwargs["device"] = _META
        if func is Tensor.to:
            args = tuple(_META if one == _CPU else one for one in args)
        return func(*args, **kwargs)

    def _narrow(self, given: Any, dtype: torch.dtype) -> Any:
        """What autocast makes of an argument; of a trained weight it makes it once."""
        if not isinstance(given, Tensor) or not given.is_floating_point() or given.dtype in (dtype, torch.float64):
            return given
        if not (given.requires_grad and given.is_leaf):
            return given.to(dtype)
        kept = self._narrowed.get(id(given))
        if kept is None:
            kept = self._narrowed[id(given)] = (given, given.to(dtype))
        return kept[1]

    @staticmethod
    def backward(loss: Tensor) -> None:
        """`loss.backward()`, but that torch switches a mode off inside the functions which it shows to it, and that is one of them."""
        torch.autograd.Variable._execution_engine.run_backward(
            (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True)

    def forget(self) -> None:
        """Let go of the narrow weights, as leaving autocast does."""
        self._narrowed.clear()


@cache
def _products() -> frozenset[Any]:
    """What autocast computes in the narrow format."""
    return frozenset((torch.nn.functional.linear, torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, Tensor.matmul, Tensor.mm,
                      Tensor.bmm, Tensor.addmm, Tensor.baddbmm, Tensor.__matmul__, scaled_dot_product_attention))


_DEVICE: Final = Tensor.device.__get__
_CPU: Final = torch.device("cpu")
_META: Final = torch.device("meta")


@cache
def _constructors() -> frozenset[Any]:
    return frozenset(_device_constructors())


def _attention(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> Tensor:
    """Arguments and result of torch's function."""
    named |= dict(zip(("attn_mask", "dropout_p", "is_causal"), rest, strict=False))
    attn_mask, dropout_p = named.get("attn_mask"), named.get("dropout_p", 0.0)
    is_causal, scale = named.get("is_causal", False), named.get("scale")
    widths = (query.shape[1], key.shape[1], query.shape[-1], value.shape[-1])
    choice = (widths, query.dtype, attn_mask is not None, dropout_p, is_causal, named.get("enable_gqa", False))
    if query.dim() != 4 or _choice(*choice) != _FLASH:
        return scaled_dot_product_attention(query, key, value, **named)
    mask = attn_mask.to(query.dtype) if attn_mask is not None and attn_mask.dtype == torch.bool else attn_mask
    found: Tensor = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default(
        query, key, value, dropout_p, is_causal, attn_mask=mask, scale=scale)[0]
    return found


@cache
def _choice(widths: tuple[int, int, int, int], dtype: torch.dtype, masked: bool, dropout: float, causal: bool, grouped: bool) -> int:
    """What torch decides for tensors that differ in their lengths only."""
    heads, groups, width, out = widths
    with torch.device("cpu"), torch._C.DisableTorchFunction():
        query = torch.zeros(1, heads, 4, width, dtype=dtype)
        key, value = (torch.zeros(1, groups, 4, size, dtype=dtype) for size in (width, out))
        mask = torch.zeros(1, 1, 4, 4, dtype=dtype) if masked else None
        return int(torch._fused_sdp_choice(query, key, value, mask, dropout, causal, enable_gqa=grouped))

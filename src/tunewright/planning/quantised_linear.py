"""Linear layers whose frozen weights are kept in few bits, for shapes only: what bitsandbytes stores, and what it unpacks to compute.

4 bits: two numbers in a byte and a float32 scale for each block of 64; with double quantisation a byte for each scale and a float32 for
each 256 of those (Dettmers et al. 2023, arXiv 2305.14314, section 3). 8 bits: a byte and a float32 scale for each row (LLM.int8(),
arXiv 2208.07339). Products are made with the whole weight unpacked, forward and again backward.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BLOCK: Final = 64
_SCALES: Final = 256
_STORED: Final = "tunewright_stored_bytes"


def stored_bytes(weight: Tensor) -> int:
    """Bytes in which a weight is kept."""
    said = weight.__dict__.get(_STORED)
    return weight.numel() * weight.element_size() if said is None else int(said)


def quantise(model: PreTrainedModel, bits: int, *, double: bool, blocked: Collection[nn.Module | None]) -> None:
    """Give every linear layer of the model but those in `blocked` the memory and the work of one with few bits."""
    for layer in model.modules():
        if type(layer) is nn.Linear and not any(layer is one for one in blocked):
            weight = nn.Parameter(layer.weight.detach(), requires_grad=False)
            weight.__dict__[_STORED] = packed_bytes(layer.out_features, layer.in_features, bits, double=double)
            layer.weight = weight
            layer.__class__ = QuantisedLinear


def packed_bytes(rows: int, columns: int, bits: int, *, double: bool) -> int:
    """Bytes of a weight [rows, columns] in 4 or 8 bits, with its scales."""
    numbers = rows * columns
    if bits == 8:
        return numbers + 4 * rows
    blocks = -(-numbers // _BLOCK)
    scales = blocks + 4 * -(-blocks // _SCALES) if double else 4 * blocks
    return -(-numbers // 2) + scales


class QuantisedLinear(nn.Linear):
    """A linear layer whose weight is unpacked whenever it is needed."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        found: Tensor = _Unpacked.apply(input, self.weight)  # type: ignore[no-untyped-call]
        bias: Tensor | None = self.bias
        return found if bias is None else found + bias


class _Unpacked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, packed: Tensor) -> Tensor:
        ctx.packed = packed
        return hidden @ packed.to(hidden.dtype, copy=True).t()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return slope @ ctx.packed.to(slope.dtype, copy=True), None

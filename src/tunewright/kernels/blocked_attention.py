"""Attention of segments on a CPU by torch's own kernel, called on blocks of queries that each see only the keys they may.

Naive equivalent: `softmax(q k^T * scale + M) v` for each segment (`kernels.packed_attention`). torch's kernel looks at all keys of a
segment that is shorter than one of its blocks, also at those that lie behind; blocks of our own leave out nearly half of them. And a
gradient needs the result of attention, which the output projection keeps anyway: here both keep the same tensor, and keys of a prefix are
put in front of a segment's own once more instead of being kept.

Axes: H query heads, G key heads, T positions of the whole row, D head width; of one segment R queries and K keys that it sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from tunewright.kernels.prefix_sharing import Segment, by_segment, hiding_mask, own
from tunewright.kernels.probe import TOLERANCE

_WHOLE: Final = (96, 2048)
"""Tokens of a row up to which, and beyond which, one call is no slower than several: torch's own blocks are small against a long row."""
_QUERIES: Final = (64, 256)
"""Of a block: a sixteenth of the segment within these bounds. Measured for rows of 120 to 1,600 tokens (docs/decisions/0012)."""
_TRIED: Final = 130
"""Tokens of the row that a model's attention is tried on: two blocks and a bit."""
_FORMATS: Final = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Rule:
    """`scale` of the products, absent for 1 / sqrt(D); `window`: a query sees its own position and the `window - 1` before it."""

    scale: float | None = None
    window: int | None = None
    dropout: float = 0.0


def fits(query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> bool:
    """Whether torch's kernel for CPUs takes them, in the number format that they are in."""
    narrows = torch.is_autocast_enabled("cpu") and query.dtype not in (torch.get_autocast_dtype("cpu"), torch.float64)
    return (query.device.type == "cpu" and query.dtype in _FORMATS and query.dtype == key.dtype == value.dtype and not narrows
            and query.shape[-1] == key.shape[-1] == value.shape[-1] and query.shape[1] % key.shape[1] == 0 and rule.dropout == 0.0
            and not torch.compiler.is_compiling())


def attend_blocks(query: Tensor, key: Tensor, value: Tensor, parts: Sequence[Segment], rule: Rule) -> Tensor:
    """Causal attention within each segment and to its prefix: [1, H, T, D], [1, G, T, D] twice -> [1, T, H, D]."""
    found: Tensor = _Attention.apply(query, key, value, tuple(parts), rule)
    return found


def disproof(heads: int, groups: int, width: int, dtype: torch.dtype) -> str | None:
    """Output and gradients of one row of several blocks, of random numbers, against those of torch's own attention, called once for all of
    it; that they differ, if they do. `heads` of queries, `groups` of keys, each of `width`."""
    generator = torch.Generator().manual_seed(0)
    query, key, value, slope = (torch.randn(1, number, _TRIED, width, generator=generator).to(dtype).requires_grad_()
                                for number in (heads, groups, groups, heads))
    if not fits(query, key, value, Rule()):
        return None
    with torch.enable_grad():
        ours = attend_blocks(query, key, value, (Segment(0, _TRIED),), Rule()).transpose(1, 2)
        theirs = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=heads != groups)
        found, wanted = ((one, *torch.autograd.grad(one, (query, key, value), slope)) for one in (ours, theirs))
    is_same = all(bool((one - two).abs().max() <= TOLERANCE.get(dtype, 1e-5) * two.abs().max())
                  for one, two in zip(found, wanted, strict=True))
    return None if is_same else f"blocks of queries give something else here than torch's attention, of {heads} heads of {width}"


class _Block(NamedTuple):
    """Queries [start, end) of a segment, and the keys [first, last), of its K, that any of them sees."""

    start: int
    end: int
    first: int
    last: int

    def mask(self, window: int | None, like: Tensor) -> Tensor | None:
        """[R, K] to be added to the products, or None where the kernel's own rule says it."""
        if self.is_causal(window):
            return None
        return hiding_mask(self.end - self.start, self.last - self.first, window, like)

    def is_causal(self, window: int | None) -> bool:
        """Whether the first query sees one key, and each next one more."""
        queries = self.end - self.start
        return queries == self.last - self.first and (window is None or queries <= window)


def _blocks(length: int, keys: int, window: int | None) -> Iterator[_Block]:
    """Of a segment of `length` queries, the last of which sees the last of `keys`."""
    alone = keys == length and (window is None or window >= length)
    whole = length <= _WHOLE[0] or (alone and length > _WHOLE[1])
    size = max(1, length) if whole else min(max(_QUERIES[0], length // 16), _QUERIES[1])
    for start in range(0, length, size):
        end, reach = min(length, start + size), keys - length
        yield _Block(start, end, 0 if window is None else max(0, reach + start - window + 1), reach + end)


class _Attention(torch.autograd.Function):
    """Saves query, key, value, the result, and the logarithm of the sum of each query's weights."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, parts: tuple[Segment, ...], rule: Rule) -> Tensor:
        found = query.new_empty(1, query.shape[2], query.shape[1], query.shape[3])
        sums = []
        results = own(parts, found.transpose(1, 2))
        for part, (queries, keys, values), result in zip(parts, by_segment(parts, query, key, value, rule.window), results, strict=True):
            for block in _blocks(part.length(), keys.shape[2], rule.window):
                here, there = slice(block.start, block.end), slice(block.first, block.last)
                result[:, :, here], log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                    queries[:, :, here], keys[:, :, there], values[:, :, there], 0.0, block.is_causal(rule.window),
                    attn_mask=block.mask(rule.window, query), scale=rule.scale)
                sums.append(log_sum)
        ctx.save_for_backward(query, key, value, found, *sums)
        ctx.parts, ctx.rule = parts, rule
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, found, *sums = ctx.saved_tensors
        parts, rule, log_sums = ctx.parts, ctx.rule, iter(sums)
        of_query, of_key, of_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        given = zip(parts, by_segment(parts, query, key, value, rule.window),
                    *(own(parts, one) for one in (found.transpose(1, 2), slope.transpose(1, 2), of_query, of_key, of_value)), strict=True)
        for part, (queries, keys, values), result, its_slope, of_queries, of_keys, of_values in given:
            reach = keys.shape[2] - part.length()
            for block in _blocks(part.length(), keys.shape[2], rule.window):
                here, there = slice(block.start, block.end), slice(block.first, block.last)
                of_queries[:, :, here], *of_seen = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                    its_slope[:, :, here], queries[:, :, here], keys[:, :, there], values[:, :, there], result[:, :, here], next(log_sums),
                    0.0, block.is_causal(rule.window), attn_mask=block.mask(rule.window, query), scale=rule.scale)
                for whole, its_own, piece in zip((of_key, of_value), (of_keys, of_values), of_seen, strict=True):
                    _add(piece, block.first - reach, whole[:, :, part.root : part.root + part.prefix], its_own)
        return of_query, of_key, of_value, None, None


def _add(piece: Tensor, first: int, prefix: Tensor, its_own: Tensor) -> None:
    """Add the gradient of the keys that a block saw to that of its segment's prefix and of its own keys. `first` is the number of the
    first of them among its own; those of the prefix, in front of them, count backwards from -1."""
    if first < 0:
        prefix[:, :, first:] += piece[:, :, :-first].sum(dim=0, keepdim=True)
        piece, first = piece[:, :, -first:], 0
    its_own[:, :, first : first + piece.shape[2]] += piece

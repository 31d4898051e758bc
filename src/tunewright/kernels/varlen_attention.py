"""Attention of segments on an NVIDIA GPU: the FlashAttention that torch brings with it, called once for all of them.

Naive equivalent: `softmax(q k^T * scale + M) v` for each segment (`kernels.packed_attention`). The kernel (Dao 2023, FlashAttention-2)
computes in 16-bit formats and reads where segments end from tensors. Its last query sees the last key, so that a segment which continues
another needs only its prefix in front of its own keys. It is not taken on trust: it is tried on the card before its first use.

Axes: H query heads, G key heads, T positions of the whole row, D head width, N segments, K keys that all segments see together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import scaled_dot_product_attention

from tunewright.kernels.blocked_attention import Rule
from tunewright.kernels.prefix_sharing import Segment, by_segment, seen_mask
from tunewright.kernels.probe import TOLERANCE

_FORMATS: Final = (torch.bfloat16, torch.float16)
_WIDEST: Final = 256
_TRIED: Final = (Segment(0, 70), Segment(70, 103, root=0, prefix=40), Segment(103, 104), Segment(104, 130))
"""Two rows of some length, one that continues the first, and one token alone."""
_TRIED_WINDOW: Final = 16


class Kind(NamedTuple):
    """What the kernel may compute wrongly, or not at all: heads, widths, format, card, and the attention's own rule."""

    heads: int
    key_heads: int
    width: int
    dtype: torch.dtype
    device: torch.device
    rule: Rule


def fits(query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> bool:
    """Whether the kernel takes them: query [1, H, T, D], key and value [1, G, T, D]."""
    if query.device.type != "cuda" or torch.compiler.is_compiling() or not query.dtype == key.dtype == value.dtype:
        return False
    if not query.shape[-1] == key.shape[-1] == value.shape[-1]:
        return False
    return obstacle(Kind(query.shape[1], key.shape[1], query.shape[-1], query.dtype, query.device, rule)) is None


@lru_cache
def obstacle(kind: Kind) -> str | None:
    """Why attention of this kind is one call for each row instead; None if it need not be. Tries the kernel, once for each kind."""
    if kind.dtype not in _FORMATS:
        return f"it computes in 16-bit formats, and this is {str(kind.dtype).removeprefix('torch.')}"
    if kind.width % 8 or kind.width > _WIDEST:
        return f"heads are {kind.width} wide"
    if kind.rule.dropout:
        return "it has no dropout"
    try:
        return _disproof(kind)
    except (RuntimeError, ImportError) as error:  # a card or a build of torch without it
        return str(error).strip().partition("\n")[0]


def attend_at_once(query: Tensor, key: Tensor, value: Tensor, parts: Sequence[Segment], rule: Rule) -> Tensor:
    """Causal attention within each segment and to its prefix: [1, H, T, D], [1, G, T, D] twice -> [1, T, H, D]."""
    from torch.nn.attention.varlen import varlen_attn

    ends = _ends(tuple(parts), query.device)
    queries, keys, values = (one[0].transpose(0, 1) for one in (query, key, value))
    if ends.seen is not None:
        keys, values = keys.index_select(0, ends.seen), values.index_select(0, ends.seen)
    found: Any = varlen_attn(
        queries, keys, values, ends.queries, ends.keys, ends.longest_queries, ends.longest_keys, scale=rule.scale,
        window_size=(-1 if rule.window is None else rule.window - 1, 0), enable_gqa=query.shape[1] != key.shape[1])
    attended: Tensor = found[None]
    return attended


class _Ends(NamedTuple):
    """queries, keys [N + 1] int32: where each segment's begin and the last one's end. seen [K]: the positions of all keys, or None where
    they are those of the row."""

    queries: Tensor
    keys: Tensor
    longest_queries: int
    longest_keys: int
    seen: Tensor | None


@lru_cache(maxsize=1)
def _ends(parts: tuple[Segment, ...], device: torch.device) -> _Ends:
    """Of the same segments for all layers."""
    lengths = [part.length() for part in parts]
    reached = [part.prefix + part.length() for part in parts]
    queries, keys = (torch.tensor([0, *accumulate(one)], dtype=torch.int32, device=device) for one in (lengths, reached))
    places = [place for part in parts for first, end in ((part.root, part.root + part.prefix), (part.start, part.end))
              for place in range(first, end)]
    seen = torch.tensor(places, device=device) if any(part.prefix for part in parts) else None
    return _Ends(queries, keys, max(lengths), max(reached), seen)


def _disproof(kind: Kind) -> str | None:
    """Result and gradients on random numbers against torch's attention in float32 with masks; how they differ, if they do. A window is
    made so small that it hides something. The first use may be inside a layer that is recomputed, whose own hooks must not see this."""
    rule = kind.rule if kind.rule.window is None else replace(kind.rule, window=min(kind.rule.window, _TRIED_WINDOW))
    generator = torch.Generator().manual_seed(0)
    length = _TRIED[-1].end

    def drawn(heads: int) -> Tensor:
        numbers = torch.randn(1, heads, length, kind.width, generator=generator)
        return numbers.to(kind.device, kind.dtype).requires_grad_()

    with (torch.inference_mode(mode=False), torch.enable_grad(), torch.autocast(kind.device.type, enabled=False),
          saved_tensors_hooks(lambda one: one, lambda one: one)):
        inputs = (drawn(kind.heads), drawn(kind.key_heads), drawn(kind.key_heads))
        wide = tuple(one.detach().float().requires_grad_() for one in inputs)
        slope = torch.randn(1, length, kind.heads, kind.width, generator=generator).to(kind.device)
        found, wanted = attend_at_once(*inputs, _TRIED, rule), _naive(wide, rule)
        ours = (found.detach(), *torch.autograd.grad(found, inputs, slope.to(kind.dtype)))
        theirs = (wanted.detach(), *torch.autograd.grad(wanted, wide, slope))
    apart = max(float((one.float() - two).abs().max() / two.abs().max()) for one, two in zip(ours, theirs, strict=True))
    return None if apart <= TOLERANCE[kind.dtype] else f"it computes something else here (by {apart:.1e})"


def _naive(inputs: tuple[Tensor, ...], rule: Rule) -> Tensor:
    """Each segment by itself, with its mask written out."""
    query, key, value = inputs
    whole = by_segment(_TRIED, query, key, value, None)
    return torch.cat([scaled_dot_product_attention(
        queries, keys, values, attn_mask=seen_mask(queries.shape[2], keys.shape[2], rule.window, query.device), scale=rule.scale,
        enable_gqa=query.shape[1] != key.shape[1]).transpose(1, 2).flatten(0, 1) for queries, keys, values in whole])[None]

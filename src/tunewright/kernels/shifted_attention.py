"""Shifted sparse attention, S2-Attn (LongLoRA, Chen et al. 2023, arXiv 2309.12307, section 3.2), for training on long rows.

The row, without padding, is cut into GROUPS groups of equal size G: how it attends does not depend on the rows beside it. In the first
half of the heads a query sees the keys of its own group that are not after it; in the second half the groups begin G / 2 later, so that
neighbours overlap. Cost: a GROUPS-th of full attention. Evaluation and generation use full attention, as in the paper.

Where we differ from the published code: its roll wraps around, so that in shifted heads the first G / 2 positions see the last ones,
which lie in their future. Here those two halves are groups of their own.
Registered through transformers' attention interface under `NAME`; no model code is changed.
Axes: B rows, H query heads, G key heads, T positions, D head width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn.functional import pad, scaled_dot_product_attention

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME: Final = "tunewright_shifted"
GROUPS: Final = 4
"""Groups of a row, as in LLaMA-Factory; the paper uses groups of a quarter of the context too."""


def register() -> str:
    """Make `NAME` known to transformers as an attention implementation, and return it."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, shifted_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME


def shifted_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
                      **settings: Any) -> tuple[Tensor, None]:
    """query [B, H, T, D], key and value [B, G, T, D] -> [B, T, H, D], None. attention_mask [B, 1, T, T], True where a query sees a key;
    rows are padded at their ends. What is given for padding is zero."""
    if not module.training:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    mixed = torch.zeros_like(query)
    for length, rows in rows_by_length(attention_mask, query):
        cut = [one[rows, :, :length] for one in (query, key, value)]
        mixed[rows, :, :length] = attend_groups(*cut, scale=settings.get("scaling"), dropout=settings.get("dropout", 0.0))
    return mixed.transpose(1, 2).contiguous(), None


def rows_by_length(attention_mask: Tensor | None, query: Tensor) -> list[tuple[int, list[int]]]:
    """The lengths of rows without padding, each with the rows that have it. The last position, padding or not, sees all that is none."""
    if attention_mask is None:
        return [(query.shape[2], list(range(query.shape[0])))]
    found: dict[int, list[int]] = {}
    for row, length in enumerate(attention_mask[:, 0, -1].sum(dim=-1).tolist()):
        found.setdefault(length, []).append(row)
    return list(found.items())


def attend_groups(query: Tensor, key: Tensor, value: Tensor, *, scale: float | None = None, dropout: float = 0.0) -> Tensor:
    """[B, H, T, D] three times -> [B, H, T, D]: the first half of the heads in groups, the second in groups shifted by half of one."""
    length, half_of_heads = query.shape[2], query.shape[1] // 2
    size = -(-length // (2 * GROUPS)) * 2
    parts = []
    for heads, first in ((slice(None, half_of_heads), 0), (slice(half_of_heads, None), size // 2)):
        # Zeros in front make the first, shorter group a whole one; only zeros see them.
        behind = -(length + (size - first) % size) % size
        front = (size - first) % size
        cut = [pad(one[:, heads], (0, 0, front, behind)) for one in (query, key, value)]
        mixed = _within_groups(cut, size, front, scale=scale, dropout=dropout)
        parts.append(mixed[:, :, front : front + length])
    return torch.cat(parts, dim=1)


def _within_groups(tensors: list[Tensor], size: int, front: int, *, scale: float | None, dropout: float) -> Tensor:
    """Causal attention of query, key and value inside consecutive groups of `size`; the first `front` positions are padding that no
    later one may see."""
    rows, heads, length, width = tensors[0].shape
    groups = length // size
    query, key, value = (one.reshape(rows, heads, groups, size, width).transpose(1, 2).reshape(rows * groups, heads, size, width)
                         for one in tensors)
    mask = torch.ones(groups, size, size, dtype=torch.bool, device=query.device).tril()
    if front:
        mask[0, front:, :front] = False
    spread = mask.repeat(rows, 1, 1)[:, None] if front else None
    mixed = scaled_dot_product_attention(query, key, value, attn_mask=spread, dropout_p=dropout, is_causal=spread is None, scale=scale)
    return mixed.reshape(rows, groups, heads, size, width).transpose(1, 2).reshape(rows, heads, length, width)

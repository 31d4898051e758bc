"""Attention inside each segment of a row that holds several, one call per segment.

Naive equivalent: softmax(q k^T * scale + M) v with M = 0 where query and key lie in the same segment, the key is not after
the query (and not further back than a sliding window), else -inf. Here the blocks outside the segments are never computed, so
the cost is the sum of the squared lengths of the segments instead of the square of their sum. Results differ from the
masked form only in the order of summation.

Registered through transformers' attention interface under `NAME`; no model code is changed.
Axes: H query heads, G key heads, T positions of the whole row, D head width, L length of one segment.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn.functional import scaled_dot_product_attention

from tunewright.errors import require

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME = "tunewright_packed"
_PADDED: Final = "set packing: false and padding_free: false"


def register() -> str:
    """Make `NAME` known to transformers as an attention implementation, and return it."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, _mask_of_padded_batches)
    return NAME


def packed_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
                     **settings: Any) -> tuple[Tensor, None]:
    """query [1, H, T, D], key and value [1, G, T, D], `cu_seq_lens_q` [N + 1] in `settings` -> [1, T, H, D], None.

    Without `cu_seq_lens_q` (padded batches, generation) this is transformers' own SDPA attention. Raises `InputError` for a model that
    masks more than its configuration says, which bounds cannot express.
    """
    bounds = settings.pop("cu_seq_lens_q", None)
    rule = Rule(settings.get("scaling"), settings.get("sliding_window"), settings.get("dropout", 0.0))
    if bounds is not None:
        demand_plain(module, attention_mask)
        return attend_segments(query, key, value, bounds.tolist(), rule), None
    demand_bounds(module)
    if attention_mask is None and rule.window is not None and key.shape[2] > rule.window:
        attention_mask = band(key.shape[2], rule.window, query.device)[key.shape[2] - query.shape[2]:]
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)


@dataclass(frozen=True, slots=True)
class Rule:
    """`scale` of the products, absent for 1 / sqrt(D); `window`: a query sees its own position and the `window - 1` before it."""

    scale: float | None = None
    window: int | None = None
    dropout: float = 0.0


def attend_segments(query: Tensor, key: Tensor, value: Tensor, bounds: list[int], rule: Rule) -> Tensor:
    """Causal attention within [bounds[i], bounds[i + 1]): [1, H, T, D], [1, G, T, D] twice -> [1, T, H, D]."""
    grouped = query.shape[1] != key.shape[1]
    parts = []
    for start, end in pairwise(bounds):
        banded = rule.window is not None and end - start > rule.window
        mask = band(end - start, rule.window or 0, query.device) if banded else None
        parts.append(scaled_dot_product_attention(
            query[:, :, start:end], key[:, :, start:end], value[:, :, start:end], attn_mask=mask, dropout_p=rule.dropout,
            is_causal=mask is None, scale=rule.scale, enable_gqa=grouped))
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous()


def demand_bounds(module: nn.Module) -> None:
    """Raise `InputError` in training, where every batch has bounds: without them the rows would see each other."""
    require(not module.training, "the model does not tell its attention where a row ends, so the rows of one sequence cannot be kept apart",
            mend=_PADDED)


def demand_plain(module: nn.Module, attention_mask: Tensor | None) -> None:
    """Raise `InputError` if attention hides more than what lies behind, outside a window or in other rows, or less."""
    require(attention_mask is None and getattr(module, "is_causal", True),
            "the model makes an attention mask of its own, so the rows of one sequence cannot be kept apart",
            mend=_PADDED)


def band(length: int, window: int, device: torch.device) -> Tensor:
    """[L, L] bool, true where a query may look: its own position and `window - 1` before it."""
    positions = torch.arange(length, device=device)
    distance = positions[:, None] - positions[None, :]
    return (distance >= 0) & (distance < window)


def _mask_of_padded_batches(*args: Any, attention_mask: Tensor | None = None, **settings: Any) -> Tensor | None:
    """The usual SDPA mask where there is padding; none where segment bounds take its place."""
    if attention_mask is None:
        return None
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(*args, attention_mask=attention_mask, **settings)

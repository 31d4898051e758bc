"""Attention inside each segment of a row that holds several, one call per segment, or for all neighbours of one length.

Naive equivalent: softmax(q k^T * scale + M) v with M = 0 where query and key lie in the same segment, the key is not after
the query (and not further back than a sliding window), else -inf. Here the blocks outside the segments are never computed, so
the cost is the sum of the squared lengths of the segments instead of the square of their sum. Results differ from the
masked form only in the order of summation. A segment may continue the beginning of an earlier one: `kernels.prefix_sharing`.

Registered through transformers' attention interface under `NAME`; no model code is changed.
Axes: H query heads, G key heads, T positions of the whole row, D head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn.functional import scaled_dot_product_attention

from tunewright.errors import require
from tunewright.kernels import varlen_attention
from tunewright.kernels.blocked_attention import Rule, attend_blocks, fits
from tunewright.kernels.prefix_sharing import Segment, by_segment, seen_mask, segments, stacked

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
    """query [1, H, T, D], key and value [1, G, T, D] -> [1, T, H, D], None.

    `settings` hold `cu_seq_lens_q` [N + 1], and `prefix_lens` [N] where a segment continues another (`kernels.prefix_sharing`).
    Without `cu_seq_lens_q` (padded batches, generation) this is transformers' own SDPA attention. Raises `InputError` for a model that
    masks more than its configuration says, which bounds cannot express.
    """
    bounds, prefix_lens = settings.pop("cu_seq_lens_q", None), settings.pop("prefix_lens", None)
    rule = Rule(settings.get("scaling"), settings.get("sliding_window"), settings.get("dropout", 0.0))
    if bounds is not None:
        demand_plain(module, attention_mask)
        return attend_segments(query, key, value, segments(bounds, prefix_lens), rule), None
    demand_bounds(module)
    if attention_mask is None and rule.window is not None and key.shape[2] > rule.window:
        attention_mask = seen_mask(query.shape[2], key.shape[2], rule.window, query.device)
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)


def attend_segments(query: Tensor, key: Tensor, value: Tensor, parts: Sequence[Segment], rule: Rule) -> Tensor:
    """Causal attention within each segment and to its prefix: [1, H, T, D], [1, G, T, D] twice -> [1, T, H, D].

    On a CPU in blocks (`kernels.blocked_attention`), on an NVIDIA GPU in one call (`kernels.varlen_attention`); where neither takes them,
    one call for each segment, or for neighbours of one length, with the keys of a prefix copied in front of its own. Two calls merged by
    their log-sum-exp would copy nothing and see no mask, but take 1.2 times as long for 80 tokens after 150 on a CPU, and products with a
    softmax of our own 1.1 to 1.3 times.
    """
    if varlen_attention.fits(query, key, value, rule):
        return varlen_attention.attend_at_once(query, key, value, parts, rule)
    parts = stacked(parts)
    if fits(query, key, value, rule):
        return attend_blocks(query, key, value, parts, rule)
    grouped = query.shape[1] != key.shape[1]
    found = []
    for part, (queries, keys, values) in zip(parts, by_segment(parts, query, key, value, rule.window), strict=True):
        banded = rule.window is not None and part.length() > rule.window
        mask = seen_mask(part.length(), keys.shape[2], rule.window, query.device) if part.prefix or banded else None
        found.append(scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, dropout_p=rule.dropout, is_causal=mask is None, scale=rule.scale,
            enable_gqa=grouped).transpose(1, 2).flatten(0, 1))
    return torch.cat(found)[None]


def demand_bounds(module: nn.Module) -> None:
    """Raise `InputError` in training, where every batch has bounds: without them the rows would see each other."""
    require(not module.training, "the model does not tell its attention where a row ends, so the rows of one sequence cannot be kept apart",
            mend=_PADDED)


def demand_plain(module: nn.Module, attention_mask: Tensor | None) -> None:
    """Raise `InputError` if attention hides more than what lies behind, outside a window or in other rows, or less."""
    require(attention_mask is None and getattr(module, "is_causal", True),
            "the model makes an attention mask of its own, so the rows of one sequence cannot be kept apart",
            mend=_PADDED)


def _mask_of_padded_batches(*args: Any, attention_mask: Tensor | None = None, **settings: Any) -> Tensor | None:
    """The usual SDPA mask where there is padding; none where segment bounds take its place."""
    if attention_mask is None:
        return None
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(*args, attention_mask=attention_mask, **settings)

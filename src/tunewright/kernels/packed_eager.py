"""The model's own eager attention inside each segment of a row that holds several, one call per segment.

For models whose attention is more than SDPA computes - sinks (GPT-OSS), capped logits (Gemma 2) - and wherever eager is asked for.
Naive equivalent: the model's eager attention over the whole row under a mask of blocks. Transformers makes such a mask from positions
that restart, but only for models that hand it their positions: GPT-OSS, for one, does not, and its rows would see each other.

Registered through transformers' attention interface under `NAME`; no model code is changed.
Axes: H query heads, G key heads, T positions of the whole row, D head width.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import torch

from tunewright.kernels.packed_attention import demand_bounds, demand_plain
from tunewright.kernels.prefix_sharing import by_segment, hiding_mask, segments, stacked

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME: Final = "tunewright_packed_eager"
EAGER: Final = "eager_attention_forward"
"""What transformers calls it in the file of every model."""


def register() -> str:
    """Make `NAME` known to transformers as an attention implementation, and return it."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, packed_eager_attention)
    AttentionMaskInterface.register(NAME, _mask_of_padded_batches)
    return NAME


def packed_eager_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
                           **settings: Any) -> tuple[Tensor, None]:
    """query [1, H, T, D], key and value [1, G, T, D] -> [1, T, H, D], None.

    `settings` hold `cu_seq_lens_q` [N + 1], and `prefix_lens` [N] where a segment continues another (`kernels.prefix_sharing`).
    Without `cu_seq_lens_q` (padded batches, generation) this is the model's eager attention. Raises `InputError` for a model that masks
    more than its configuration says, which bounds cannot express.
    """
    eager = getattr(sys.modules[type(module).__module__], EAGER)
    bounds, prefix_lens = settings.pop("cu_seq_lens_q", None), settings.pop("prefix_lens", None)
    window = settings.get("sliding_window")
    if bounds is None:
        demand_bounds(module)
        mask = _mask(query, key, window) if attention_mask is None else attention_mask
        return eager(module, query, key, value, mask, **settings)[0], None
    demand_plain(module, attention_mask)
    parts = stacked(segments(bounds, prefix_lens))
    found = [eager(module, queries, keys, values, _mask(queries, keys, window), **settings)[0].flatten(0, 1)
             for queries, keys, values in by_segment(parts, query, key, value, window)]
    return torch.cat(found)[None], None


def _mask(query: Tensor, key: Tensor, window: int | None) -> Tensor:
    """query [C, H, R, D], key [C, G, K, D] -> [1, 1, R, K] to add to their logits: 0 where a query may look, the least number elsewhere."""
    return hiding_mask(query.shape[2], key.shape[2], window, query, torch.finfo(query.dtype).min)[None, None]


def _mask_of_padded_batches(*args: Any, attention_mask: Tensor | None = None, **settings: Any) -> Tensor | None:
    """The usual eager mask where there is padding; none where segment bounds take its place."""
    if attention_mask is None:
        return None
    from transformers.masking_utils import eager_mask

    return eager_mask(*args, attention_mask=attention_mask, **settings)

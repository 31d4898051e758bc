"""Whether the rows of one sequence can be kept apart in a model, and by which attention.

Four answers: by `packed_attention`, or by `packed_eager` where SDPA cannot compute the model's attention; by masks of blocks, which
transformers makes for models that attend within chunks; or not at all. tests/kernels/test_isolation.py compares what is said here with
what models of many families do.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from tunewright.kernels.packed_eager import EAGER

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_IN_SEGMENTS: Final = frozenset({"full_attention", "sliding_attention", "attention"})
"""Kinds of layers whose masks the bounds of rows express."""
_IN_CHUNKS: Final = "chunked_attention"
_INTERFACE: Final = "ALL_ATTENTION_FUNCTIONS"
"""What the file of a model imports if its attention can be chosen."""


def barrier(model: PreTrainedModel) -> str | None:
    """Why rows that are laid end to end would reach each other in this model, whatever the attention; None if they can be kept apart."""
    others = sorted(_layer_types(model) - _IN_SEGMENTS - {_IN_CHUNKS})
    if model._is_stateful or others:
        kinds = f" ({', '.join(others)})" if others else ""
        return f"the model has layers in which a token reaches others by more than attention{kinds}"
    files = {type(module).__module__ for module in model.modules()}
    is_told = any({_INTERFACE, EAGER} <= vars(sys.modules[file]).keys() for file in files)
    if not model._supports_attention_backend or not is_told:
        return "the model's attention is code of its own, which is not told where a row ends"
    return None


def in_chunks(model: PreTrainedModel) -> bool:
    """Whether the model attends within chunks (Llama 4), which only masks express."""
    return _IN_CHUNKS in _layer_types(model)


def obstacle(model: PreTrainedModel) -> str | None:
    """Why SDPA cannot compute this model's attention, or None."""
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None):
        return "the model caps its attention logits"
    if model.config.get_text_config().model_type.startswith("gpt_oss"):
        return "the model has attention sinks"
    return None if model._supports_sdpa else "the model has eager attention only"


def _layer_types(model: PreTrainedModel) -> frozenset[str]:
    return frozenset(getattr(model.config.get_text_config(), "layer_types", None) or ())

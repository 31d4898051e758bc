"""Whether the rows of one sequence can be kept apart in a model, and by which attention.

Four answers: by `packed_attention`, or by `packed_eager` where SDPA cannot compute the model's attention; by masks of blocks, which
transformers makes for models that attend within chunks; or not at all. Code says most of it; whether the bounds of rows come as far as
the attention is tried. tests/kernels/test_isolation.py compares what is said here with what models of many families do.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

import torch

from tunewright.kernels.packed_eager import EAGER
from tunewright.kernels.probe import probe_tokens, quiet_run

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_IN_SEGMENTS: Final = frozenset({"full_attention", "sliding_attention", "attention"})
"""Kinds of layers whose masks the bounds of rows express."""
_IN_CHUNKS: Final = "chunked_attention"
_INTERFACE: Final = "ALL_ATTENTION_FUNCTIONS"
"""What the file of a model imports if its attention can be chosen."""
_LISTENER: Final = "tunewright_listener"
"""An attention that computes nothing. It has no mask in transformers' table, so that none is made for it."""


class _Reached(Exception):
    """Thrown by the first attention of a model that is listened to. `is_told`: whether it was given the bounds of rows."""

    def __init__(self, *, is_told: bool) -> None:
        super().__init__()
        self.is_told = is_told


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


def deafness(model: PreTrainedModel) -> str | None:
    """Why bounds of rows would not come as far as the attention of a model without a `barrier`; None if they do.

    Layers may keep what they are given (Nemotron). Two rows of one token go through the model up to its first attention, which looks
    at what has come with them. No number matters to it, so that a model of shapes only gets the same answer.
    """
    from transformers import AttentionInterface

    own = _implementations(model.config)
    AttentionInterface.register(_LISTENER, _listen)
    ids = probe_tokens(model, 2)
    bounds = torch.arange(3, dtype=torch.int32, device=ids.device)
    told = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": 1, "max_length_k": 1}
    is_told = False
    try:
        model.set_attn_implementation(_LISTENER)
        with quiet_run(model):
            model(input_ids=ids, position_ids=torch.zeros_like(ids), attention_mask=None, use_cache=False, **told)
    except _Reached as reached:
        is_told = reached.is_told
    finally:
        model.set_attn_implementation(own)
    return None if is_told else "the model does not tell its attention where a row ends"


def _listen(*given: Any, **settings: Any) -> NoReturn:
    raise _Reached(is_told=settings.get("cu_seq_lens_q") is not None)


def _implementations(config: PretrainedConfig) -> dict[str, Any]:
    """The attention of a model and of each of its parts, as `set_attn_implementation` takes it."""
    parts = {name: getattr(config, name) for name in config.sub_configs}
    return {"": config._attn_implementation, **{name: _implementations(part) for name, part in parts.items() if part is not None}}


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

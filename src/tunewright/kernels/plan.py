"""Which fast paths a run takes, and why the others were not taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunewright.errors import require

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from tunewright.config.run import RunConfig


@dataclass(frozen=True, slots=True)
class KernelPlan:
    """`attention`: implementation name for transformers. `flat`: rows are laid end to end instead of padded."""

    attention: str
    flat: bool
    reasons: tuple[str, ...]


def plan(run: RunConfig, model_config: PretrainedConfig) -> KernelPlan:
    """Choose the attention implementation and the layout of batches from the run and the model's own configuration."""
    chosen = {"auto": "sdpa", "disabled": "eager", "sdpa": "sdpa", "fa2": "flash_attention_2"}[run.model.flash_attn]
    if run.model.shift_attn:
        from tunewright.kernels import shifted_attention

        _require_plain(model_config)
        groups = shifted_attention.GROUPS
        return KernelPlan(shifted_attention.NAME, False, (f"attention {shifted_attention.NAME}: in {groups} groups while training",))
    isolate = run.data.neat_packing if run.data.packing else run.batching.padding_free
    if not isolate:
        seen = "the rows of a packed sequence see each other" if run.data.packing else "each row attends to itself"
        return KernelPlan(chosen, False, (f"attention {chosen}: sequences are padded, {seen}",))
    if run.model.flash_attn not in ("auto", "sdpa"):
        return KernelPlan(chosen, True, (f"attention {chosen}, asked for by flash_attn; segments by their positions",))
    obstacle = _obstacle(model_config)
    if obstacle:
        return KernelPlan("eager", True, (f"attention eager with a block mask: {obstacle}",))
    from tunewright.kernels.packed_attention import NAME

    return KernelPlan(NAME, True, (f"attention {NAME}: one call per row, no mask and no padding",))


def apply(run: RunConfig, model: PreTrainedModel) -> KernelPlan:
    """Plan for this model and switch its attention over; returns the plan."""
    from tunewright.kernels import packed_attention, shifted_attention

    chosen = plan(run, model.config)
    for kernel in (packed_attention, shifted_attention):
        if chosen.attention == kernel.NAME:
            kernel.register()
    if model.config._attn_implementation != chosen.attention:
        model.set_attn_implementation(chosen.attention)
    return chosen


def _obstacle(model_config: PretrainedConfig) -> str | None:
    """Why this model cannot use packed attention, or None."""
    text = model_config.get_text_config()
    if getattr(text, "attn_logit_softcapping", None):
        return "the model caps its attention logits"
    if text.model_type.startswith("gpt_oss"):
        return "the model has attention sinks"
    return None


def _require_plain(model_config: PretrainedConfig) -> None:
    """Raise InputError unless the model attends to everything before a position, in the usual way."""
    windowed = getattr(model_config.get_text_config(), "sliding_window", None)
    obstacle = _obstacle(model_config) or ("the model attends within a sliding window" if windowed else None)
    require(obstacle is None, f"shift_attn: {obstacle}", mend="remove it")

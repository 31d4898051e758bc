"""Which fast paths a run takes, and why the others were not taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tunewright.errors import require
from tunewright.kernels import isolation

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tunewright.config.run import RunConfig


@dataclass(frozen=True, slots=True)
class KernelPlan:
    """`attention`: implementation name for transformers. `flat`: rows are laid end to end instead of padded."""

    attention: str
    flat: bool
    reasons: tuple[str, ...]


def plan(run: RunConfig, model: PreTrainedModel) -> KernelPlan:
    """Choose the attention implementation and the layout of batches from the run and the model.

    Raises `InputError` where the run wants rows of one sequence kept apart and the model cannot do that.
    """
    if run.model.shift_attn:
        return _shifted(model)
    chosen = _NAMES[run.model.flash_attn]
    isolate = run.data.neat_packing if run.data.packing else run.batching.padding_free
    if not isolate:
        seen = _PLAIN if run.data.packing else "each row attends to itself"
        return KernelPlan(_own(chosen, model), False, (f"attention {_own(chosen, model)}: sequences are padded, {seen}",))
    leak = isolation.barrier(model)
    if leak is not None:
        require(not run.data.packing, f"packing: rows of one sequence cannot be kept apart: {leak}",
                mend="set packing: false, or neat_packing: false to let them see each other")
        return KernelPlan(_own(chosen, model), False, (f"attention {chosen}: sequences are padded in spite of padding_free: {leak}",))
    return _isolated(run.model.flash_attn, model)


_NAMES: Final = {"auto": "sdpa", "disabled": "eager", "sdpa": "sdpa", "fa2": "flash_attention_2"}
"""Value of `flash_attn` -> attention implementation of transformers."""

_PLAIN: Final = "the rows of a packed sequence see each other (packing without neat_packing)"


def _own(chosen: str, model: PreTrainedModel) -> str:
    """The implementation that is chosen, or eager where the model has no SDPA."""
    return "eager" if chosen == "sdpa" and not model._supports_sdpa else chosen


def _isolated(flash_attn: str, model: PreTrainedModel) -> KernelPlan:
    """Rows end to end that do not see each other."""
    from tunewright.kernels import packed_attention, packed_eager

    if isolation.in_chunks(model):
        chosen = _own(_NAMES[flash_attn], model)
        return KernelPlan(chosen, True, (f"attention {chosen} with a mask of blocks: the model attends within chunks",))
    if flash_attn == "fa2":
        return KernelPlan(_NAMES["fa2"], True, ("attention flash_attention_2, asked for by flash_attn; segments by their bounds",))
    obstacle = "flash_attn asks for it" if flash_attn == "disabled" else isolation.obstacle(model)
    if obstacle is not None:
        return KernelPlan(packed_eager.NAME, True, (f"attention {packed_eager.NAME}: eager, one call per row: {obstacle}",))
    return KernelPlan(packed_attention.NAME, True, (f"attention {packed_attention.NAME}: one call per row, no mask and no padding",))


def apply(run: RunConfig, model: PreTrainedModel) -> KernelPlan:
    """Plan for this model and switch its attention over; returns the plan."""
    from tunewright.kernels import packed_attention, packed_eager, shifted_attention

    chosen = plan(run, model)
    for kernel in (packed_attention, packed_eager, shifted_attention):
        if chosen.attention == kernel.NAME:
            kernel.register()
    if model.config._attn_implementation != chosen.attention:
        model.set_attn_implementation(chosen.attention)
    return chosen


def _shifted(model: PreTrainedModel) -> KernelPlan:
    """Shifted attention. Raises `InputError` unless the model attends to everything before a position, in the usual way."""
    from tunewright.kernels import shifted_attention

    windowed = getattr(model.config.get_text_config(), "sliding_window", None)
    chunked = "the model attends within chunks" if isolation.in_chunks(model) else None
    obstacle = (isolation.barrier(model) or isolation.obstacle(model) or chunked
                or ("the model attends within a sliding window" if windowed else None))
    require(obstacle is None, f"shift_attn: {obstacle}", mend="remove it")
    groups = shifted_attention.GROUPS
    return KernelPlan(shifted_attention.NAME, False, (f"attention {shifted_attention.NAME}: in {groups} groups while training",))

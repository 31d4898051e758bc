"""LLaMA Pro (Wu et al. 2024, arXiv 2401.02415): blocks inserted at even distances train, the blocks of the original model stand still."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tunewright.adapters.targets import matching
from tunewright.config.tuning import LoraConfig
from tunewright.errors import require
from tunewright.models.families import decoder_layers, linear_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def expanded_blocks(blocks: int, inserted: int) -> list[int]:
    """Positions of the `inserted` blocks among all `blocks`: the last of each of `inserted` groups of equal size (section 3.2).

    Raises InputError if the groups would not be equal.
    """
    require(inserted > 0 and blocks % inserted == 0,
            f"use_llama_pro: {blocks} layers do not fall into {inserted} groups of equal size, whose last layers were inserted",
            mend="set freeze_trainable_layers to the number of blocks that the model was expanded by")
    size = blocks // inserted
    return list(range(size - 1, blocks, size))


def within_expanded_blocks(model: PreTrainedModel, lora: LoraConfig, inserted: int) -> LoraConfig:
    """`lora` with its targets narrowed to the inserted blocks, by full names."""
    prefix, modules = decoder_layers(model)
    inside = tuple(f"{prefix}.{position}." for position in expanded_blocks(len(modules), inserted))
    everything = [name for name in linear_layers(model) if name.startswith(inside)]
    chosen = {name for entry in lora.lora_target for name in (everything if entry == "all" else matching(entry, everything, "lora_target"))}
    return replace(lora, lora_target=tuple(sorted(chosen)))

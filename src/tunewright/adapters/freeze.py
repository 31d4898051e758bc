"""Partial tuning: some decoder layers, or some modules of them, train in full; the rest stands still."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from tunewright.adapters.expanded import expanded_blocks
from tunewright.adapters.targets import nearest
from tunewright.config.tuning import FreezeConfig
from tunewright.errors import require
from tunewright.models.families import decoder_layers

if TYPE_CHECKING:
    from torch import nn


def freeze(model: nn.Module, config: FreezeConfig) -> None:
    """Leave `requires_grad` on exactly the parameters that `trainable_names` lists."""
    trained = set(trainable_names(model, config))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)


def trainable_names(model: nn.Module, config: FreezeConfig) -> list[str]:
    """Parameters that train: in the chosen layers those of the chosen modules, outside the layers the extra modules.

    Raises `InputError` if there are fewer layers, a module matches nothing, or nothing is left to train.
    """
    prefix, modules = decoder_layers(model)
    wanted, count = config.freeze_trainable_layers, len(modules)
    require(abs(wanted) <= count, f"freeze_trainable_layers is {wanted}, but the model has {count} layers",
            mend=f"use -{count} to {count}")
    ends = range(count - wanted, count) if wanted >= 0 else range(-wanted)
    chosen = expanded_blocks(count, wanted) if config.use_llama_pro else ends
    names = [name for name, _ in model.named_parameters()]
    within = {name: name.removeprefix(f"{prefix}.").partition(".")[2] for name in names if name.startswith(f"{prefix}.")}
    in_layers = {name: rest for name, rest in within.items() if int(name.removeprefix(f"{prefix}.").split(".")[0]) in chosen}
    trained = _under(config.freeze_trainable_modules, in_layers, "freeze_trainable_modules") if chosen else set()
    outside = {name: name for name in names if name not in within}
    trained |= _under(config.freeze_extra_modules, outside, "freeze_extra_modules")
    require(bool(trained), "freeze_trainable_layers is 0 and freeze_extra_modules is empty: nothing would train",
            mend="choose at least one layer or module")
    return [name for name in names if name in trained]


def _under(entries: Collection[str], paths: dict[str, str], parameter: str) -> set[str]:
    """Parameters whose path has `entry` as consecutive parts (`mlp`, `self_attn.q_proj`, `q_proj`); `all` for every one."""
    result: set[str] = set()
    for entry in entries:
        found = {name for name, path in paths.items() if entry == "all" or f".{entry}." in f".{path}."}
        known = {part for path in paths.values() for part in path.split(".")[:-1]}
        require(bool(found), f"{parameter}: {entry!r} matches no module of this model", mend=f"use {nearest(entry, known)}")
        result |= found
    return result

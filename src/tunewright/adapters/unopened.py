"""What can be known of tuning before the model is opened, from the names and shapes in the headers of its weights.

A name is refused here only if nothing like it stands in the files: transformers may rename what it loads, so the exact test
is that of `targets` and `freeze` on the model itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from tunewright.adapters.directory import AdapterFacts, check_fits_modules
from tunewright.adapters.targets import nearest
from tunewright.config.run import RunConfig
from tunewright.errors import Problem

Shapes = Mapping[str, tuple[int, ...]]
HEADS: Final = ("lm_head", "embed_out", "output_layer")
"""Output heads that share the embedding's weight are modules, but in no file."""


def names_that_match_nothing(run: RunConfig, shapes: Shapes) -> list[Problem]:
    """Entries of lora_target, additional_target and the freeze lists that no module is called, nor matches as a pattern."""
    if any(".experts." in name for name in shapes):
        return []
    modules = {name.rpartition(".")[0] for name in shapes} | set(HEADS)
    lora, freeze = run.lora, run.freeze
    asked: dict[str, tuple[str, ...]] = {}
    if run.tuning.finetuning_type == "lora" and (not run.model.adapter_name_or_path or lora.create_new_adapter):
        asked = {"lora_target": lora.lora_target, "additional_target": lora.additional_target}
    if run.tuning.finetuning_type == "freeze":
        asked = {"freeze_trainable_modules": freeze.freeze_trainable_modules, "freeze_extra_modules": freeze.freeze_extra_modules}
    return [Problem(f"{field}: '{entry}' matches no module of this model", mend=f"use {_near(entry, modules)}")
            for field, entries in asked.items() for entry in entries if entry != "all" and not _matches(entry, modules)]


def too_many_layers(run: RunConfig, layers: int | None) -> list[Problem]:
    """freeze_trainable_layers asks for more layers than config.json says there are."""
    wanted = run.freeze.freeze_trainable_layers
    if run.tuning.finetuning_type != "freeze" or layers is None or abs(wanted) <= layers:
        return []
    return [Problem(f"freeze_trainable_layers: {wanted}, but the model has {layers} layers", mend=f"use -{layers} to {layers}")]


def check_fits_files(facts: AdapterFacts, shapes: Shapes, model: str) -> None:
    """Raise `InputError` if the adapter has a module that the model's files lack, or one of another size."""
    if any(".experts." in name for name in shapes):
        return
    adapted = {name.removeprefix("base_model.model.").partition(".lora_")[0] for name in facts.shapes}
    # Files may name a module with or without the class's prefix (`h.0.attn`, `transformer.h.0.attn`): the longer name is the module's.
    spoken = {f"{full}.weight": shape for name, shape in shapes.items() if name.endswith(".weight")
              for full in (name.removesuffix(".weight"), *_prefixed(name.removesuffix(".weight"), adapted))}
    modules = {name.removesuffix(".weight") for name in spoken}
    check_fits_modules(facts, modules | {module for module in adapted if module.rpartition(".")[2] in HEADS}, spoken, model)


def _prefixed(module: str, adapted: Iterable[str]) -> list[str]:
    return [one for one in adapted if one.endswith(f".{module}")]


def _matches(entry: str, modules: Iterable[str]) -> bool:
    named = f".{entry}."
    try:
        pattern = re.compile(entry)
    except (re.error, RecursionError):
        return True  # the rule on patterns says so
    return any(named in f".{module}." or pattern.search(module) for module in modules)


def _near(entry: str, modules: Iterable[str]) -> str:
    """Nearest parts of names; containers such as `mlp` count too."""
    parts = {part for module in modules for part in module.split(".") if not part.isdigit()}
    return nearest(entry, parts)

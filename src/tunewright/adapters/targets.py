"""Which modules get an adapter: names, regular expressions and `all`, resolved against a model."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

from tunewright.config.tuning import LoraConfig
from tunewright.errors import refuse, require
from tunewright.models.families import embeddings, fused_experts, linear_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


log = logging.getLogger(__name__)


class Targets(NamedTuple):
    """`modules`: shortest list of names for peft that matches exactly the chosen modules. `parameters`: fused experts."""

    modules: list[str]
    parameters: list[str]


def resolve_targets(model: PreTrainedModel, lora: LoraConfig) -> Targets:
    """The modules that `lora_target` asks for. Raises `InputError` on an invalid pattern or one that matches nothing.

    `all` takes every linear layer but the output head, and fused experts where the method allows (see `fused_allowed`);
    experts that it cannot take stay visible in the coverage report.
    """
    everything = adaptable(model)
    chosen: set[str] = set()
    for entry in lora.lora_target:
        chosen |= set(linear_layers(model)) if entry == "all" else matching(entry, everything, "lora_target")
    experts = sorted({name.rsplit(".", 2)[-2] + "." + name.rsplit(".", 1)[-1] for name in fused_experts(model)})
    takes_experts = "all" in lora.lora_target and fused_allowed(lora)
    if experts and "all" in lora.lora_target and not takes_experts:
        log.warning("the experts (%s) get no adapter: they are fused tensors, which take neither dropout nor DoRA, PiSSA or biases",
                    ", ".join(experts))
    return Targets(shortest(chosen, [name for name, _ in model.named_modules()]), experts if takes_experts else [])


def fused_allowed(lora: LoraConfig) -> bool:
    """Whether the method can adapt a fused expert tensor: peft's wrapper knows neither dropout nor DoRA nor PiSSA."""
    return lora.lora_dropout == 0 and not lora.use_dora and not lora.pissa_init and lora.lora_bias == "none"


def adaptable(model: PreTrainedModel) -> dict[str, object]:
    """Modules that can carry an adapter, by name: linear layers, the output head, the embedding."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return {name: module for name, module in model.named_modules()
            if isinstance(module, nn.Linear | Conv1D) or module is embeddings(model)}


def matching(entry: str, names: Collection[str], parameter: str) -> set[str]:
    """Names that end with `entry` at a dot, else those that it matches as a regular expression over the whole name."""
    named = {name for name in names if name == entry or name.endswith(f".{entry}")}
    if named:
        return named
    try:
        pattern = re.compile(entry)
    except (re.error, RecursionError) as error:
        refuse(f"{parameter}: {entry!r} is neither a module of this model nor a valid regular expression ({error})",
               mend=f"use names such as {nearest(entry, names)}")
    found = {name for name in names if pattern.fullmatch(name)}
    require(bool(found), f"{parameter}: {entry!r} matches no module of this model", mend=f"use {nearest(entry, names)}")
    return found


def nearest(entry: str, names: Iterable[str]) -> str:
    """The last parts of `names` nearest to `entry`, else all of them, at most eight, as a list for a message."""
    parts = sorted({name.rsplit(".", 1)[-1] for name in names})
    close = get_close_matches(entry, parts, n=3, cutoff=0.5)
    shown = close or parts[:8]
    return ", ".join(shown) + (" ..." if not close and len(parts) > 8 else "")


def shortest(chosen: Collection[str], everything: Sequence[str], *, separator: str = ".") -> list[str]:
    """`chosen` as last parts of names where no other module ends in them, in full elsewhere; sorted.

    peft matches a listed name against the end of a module's name, so a part shared with another module, such as the output
    head, must be spelled out. It wants a dot (`separator`) before the part in `target_modules`, but none in
    `modules_to_save`, where `norm` would also take every `input_layernorm`.
    """
    result: set[str] = set()
    for name in chosen:
        part = name.rsplit(".", 1)[-1]
        also = {other for other in everything if other == part or other.endswith(f"{separator}{part}")}
        result.add(part if also <= set(chosen) else name)
    return sorted(result)

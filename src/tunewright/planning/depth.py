"""A model of many layers of one make, planned for with a few of them.

Every layer keeps the same for the backward pass, so what is live at a given moment (as the loss is computed, as the first layer's backward
pass runs) is a + b L for L layers, exactly. Two depths give a and b. Layers that differ in anything but their number are all run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tunewright.errors import InputError
from tunewright.kernels.recompute import LAYERS
from tunewright.models.families import decoder_layers

if TYPE_CHECKING:
    from torch import nn

    from tunewright.config.run import RunConfig

BUILT: Final = 3
"""Layers that stand for all."""
_NUMBERS: Final = ("layer_idx", "layer_id", "layer_number", "training")


@dataclass(frozen=True, slots=True)
class Depth:
    """`layers`: the `BUILT` that are there; `count`: how many there are to be."""

    layers: nn.ModuleList
    count: int

    @contextmanager
    def less_one(self) -> Iterator[None]:
        """Inside, the last of them is missing."""
        last = self.layers[-1]
        del self.layers[-1]
        try:
            yield
        finally:
            self.layers.append(last)


def shorten(model: nn.Module, run: RunConfig) -> Depth | None:
    """Take all layers but `BUILT` out of a model that has no adapter yet. None, and nothing is done, if the layers are not alike."""
    if not _treats_alike(run):
        return None
    try:
        layers = decoder_layers(model).modules
    except InputError:
        return None
    first = _make(layers[0])
    if len(layers) <= BUILT or not _runs_alike(model) or any(_make(layer) != first for layer in layers):
        return None
    count = len(layers)
    del layers[BUILT:]
    return Depth(layers, count)


def _treats_alike(run: RunConfig) -> bool:
    """Whether the run does the same with every layer. Names with digits may mean some layers only."""
    named = (*run.lora.lora_target, *run.lora.additional_target, *(() if run.precision.recompute_modules == LAYERS
                                                                   else run.precision.recompute_modules))
    return (run.tuning.finetuning_type in ("full", "lora", "none") and not (run.optimizer.use_badam and run.optimizer.badam_mode == "layer")
            and not run.freeze.use_llama_pro and not any(letter.isdigit() for name in named for letter in name))


def _runs_alike(model: nn.Module) -> bool:
    """Whether the configuration tells layers apart."""
    settings: Any = model.config
    kinds = getattr(settings.get_text_config(), "layer_types", None)
    return kinds is None or len(set(kinds)) == 1


def _make(layer: nn.Module) -> tuple[object, ...]:
    """Everything about a layer but its number and the contents of its weights."""
    parts: list[object] = []
    for name, module in layer.named_modules():
        parts.append((name, type(module), *((key, value) for key, value in sorted(module.__dict__.items())
                                            if key not in _NUMBERS and isinstance(value, bool | int | float | str | None))))
        parts += [(key, one.shape, one.dtype) for held in (module._parameters, module._buffers) for key, one in held.items()
                  if one is not None]
    return tuple(parts)

"""What is where in a model: decoder layers, embeddings, output head, linear layers, fused experts.

Found by structure, not by a table of names, so that a new family works on the day it appears: the layers are the longest
list of like modules; embeddings and head are what the model itself says they are.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from tunewright.errors import InputError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class Layers(NamedTuple):
    """The decoder layers: `prefix` is the name of the list (`model.layers`), `modules` the list itself."""

    prefix: str
    modules: nn.ModuleList


def decoder_layers(model: nn.Module) -> Layers:
    """The longest list of modules of one class, the one nearest the root if several are as long.

    Llama and its kin call it `model.layers`, GPT-2 `transformer.h`, MPT `transformer.blocks`. Lists inside a layer
    (experts) are not candidates. Raises `InputError` if there is none.
    """
    from torch import nn

    found: list[Layers] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{layers.prefix}.") for layers in found)
        if isinstance(module, nn.ModuleList) and len(module) > 0 and not inside and _is_decoder(module):
            found.append(Layers(name, module))
    if not found:
        raise InputError(f"no decoder layers found in {type(model).__name__}", mend="use finetuning_type: full or lora")
    return max(found, key=lambda layers: (len(layers.modules), -layers.prefix.count(".")))


def embeddings(model: PreTrainedModel) -> nn.Module:
    """The token embedding."""
    return model.get_input_embeddings()


def head(model: PreTrainedModel) -> nn.Module | None:
    """The output head, None for a model without one."""
    return model.get_output_embeddings()


def is_tied(model: PreTrainedModel) -> bool:
    """Whether the output head has the embedding's weight for its own."""
    top = head(model)
    return top is not None and getattr(top, "weight", None) is getattr(embeddings(model), "weight", None)


def vocabulary_rows(model: nn.Module) -> int:
    """Rows of the token embedding, which may carry an adapter."""
    return int(model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Every linear layer but the output head, by name: `nn.Linear` and its subclasses, and GPT-2's Conv1D."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    top = head(model)
    return {name: module for name, module in model.named_modules()
            if isinstance(module, nn.Linear | Conv1D) and module is not top}


def fused_experts(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights of mixture-of-experts blocks kept as one [experts, ., .] tensor, by name; linear layers they are not."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.dim() == 3 and ".experts." in name}


def is_quantised(model: nn.Module) -> bool:
    """Whether the linear layers keep their weights in a few bits: such weights neither train nor take an adapter in."""
    return bool(getattr(model, "is_quantized", False))


def is_packed(weight: nn.Parameter) -> bool:
    """Whether a weight is no number but a code: of all weights only quantised ones are integers."""
    return not weight.is_floating_point() or getattr(weight, "quant_state", None) is not None


def shape_of(weight: nn.Parameter) -> tuple[int, ...]:
    """The shape of a weight in numbers: of one kept in 4 bits, not that of the bytes it is packed into."""
    packed = getattr(weight, "quant_state", None)
    return tuple(weight.shape if packed is None else packed.shape)


def kind(name: str) -> str:
    """`name` with layer and expert numbers replaced by `*`: the same for like modules of all layers."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)


def _is_decoder(modules: nn.ModuleList) -> bool:
    return len({type(module) for module in modules}) == 1 and next(modules[0].parameters(), None) is not None

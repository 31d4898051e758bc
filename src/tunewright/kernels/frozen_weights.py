"""Frozen weights kept in the number format that mixed precision computes in, where that loses nothing.

Under autocast a linear layer rounds its float32 weight to bfloat16 or float16 whenever it is used, and a layer with a LoRA keeps the
rounded copy until its backward pass. Most models are published in 16 bits, so their float32 weights hold no more than that. Where rounding
changes no number of a frozen weight, the weight is kept rounded: a third of the memory, and every product is the same to the last bit.
Outside autocast the layer widens its weight for the product, which then has the bits that it had before, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from tunewright.kernels.heap import give_back
from tunewright.kernels.probe import probe_tokens, quiet_run
from tunewright.kernels.taken import REPLACED, Taken, counted
from tunewright.kernels.verdicts import Ask, prove_anew

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LOSSY: Final = "numbers that need float32"


def narrow(model: PreTrainedModel, ask: Ask = prove_anew, *, dtype: torch.dtype) -> Taken:
    """Keep the frozen weights of linear layers in `dtype`, that of mixed precision, where it holds every number of a layer's; shown by a
    pass over a few tokens to change no bit. Says which of those layers are kept so."""
    reasons = {layer: _obstacle(layer, dtype) for layer in _frozen(model)}
    chosen = [layer for layer, reason in reasons.items() if reason is None]
    against = ask(f"frozen weights in {dtype}", partial(_disproof, model, chosen, dtype)) if chosen else None
    if chosen and against is None:
        _keep_in(chosen, dtype)
        give_back()
    return counted(reason or against for reason in reasons.values())


def narrow_unproven(model: nn.Module, dtype: torch.dtype) -> None:
    """`narrow` for a model that has shapes and no numbers, as the planner makes one, all of whose weights `dtype` holds."""
    _keep_in(list(_frozen(model)), dtype)


@contextmanager
def widened(model: nn.Module) -> Iterator[None]:
    """Inside, the weights that were narrowed are float32 again, so that they need not be widened for each product."""
    kept = [(layer, next(layer.parameters()).dtype) for layer in model.modules() if _is_narrowed(layer)]
    for layer, _ in kept:
        _cast(layer, torch.float32)
    try:
        yield
    finally:
        for layer, dtype in kept:
            _cast(layer, dtype)


def _frozen(model: nn.Module) -> Iterator[nn.Linear]:
    """The linear layers with weights of their own that do not train, in float32. Variants of LoRA read the weight below them, and not for
    a product alone."""
    owners = Counter(id(weight) for module in model.modules() for weight in module._parameters.values())
    read = {id(module.base_layer) for module in model.modules() if getattr(module, "lora_variant", None)}
    for module in model.modules():
        if type(module) is nn.Linear and id(module) not in read:
            own = [weight for weight in module._parameters.values() if weight is not None]
            if all(owners[id(weight)] == 1 and weight.dtype == torch.float32 and not weight.requires_grad for weight in own):
                yield module


def _obstacle(layer: nn.Linear, dtype: torch.dtype) -> str | None:
    """Why a layer's weight stays as it is, or None."""
    if "forward" in layer.__dict__:
        return REPLACED
    return None if all(torch.equal(weight.to(dtype).float(), weight) for weight in layer.parameters()) else _LOSSY


def _keep_in(layers: list[nn.Linear], dtype: torch.dtype) -> None:
    for layer in layers:
        _cast(layer, dtype)
        layer.forward = partial(_forward, layer)  # type: ignore[method-assign]


def _cast(layer: nn.Module, dtype: torch.dtype) -> None:
    for weight in layer.parameters():
        weight.data = weight.data.to(dtype)


def _is_narrowed(layer: nn.Module) -> bool:
    own = layer.__dict__.get("forward")
    return isinstance(own, partial) and own.func is _forward


def _forward(layer: nn.Linear, hidden: Tensor) -> Tensor:
    if torch.is_autocast_enabled(hidden.device.type):
        return linear(hidden, layer.weight, layer.bias)
    weight, *bias = (own.to(hidden.dtype) for own in layer.parameters())
    return linear(hidden, weight, *bias)


def _disproof(model: PreTrainedModel, layers: list[nn.Linear], dtype: torch.dtype) -> str | None:
    """Run the model on a few tokens under autocast with these weights wide and then narrow, which they stay unless something goes wrong;
    what does, if so."""
    ids, reason = probe_tokens(model), None
    with quiet_run(model), torch.autocast(ids.device.type, dtype):
        expected = model(input_ids=ids, use_cache=False).logits
        _keep_in(layers, dtype)
        try:
            found = model(input_ids=ids, use_cache=False).logits
        except RuntimeError:  # code of the model's own multiplies by a weight without the layer, and without autocast
            reason = "the model reads a weight without its layer"
        else:
            reason = None if torch.equal(found, expected) else "the model computes something else"
    for layer in layers if reason is not None else ():
        _cast(layer, torch.float32)
        del layer.forward
    return reason

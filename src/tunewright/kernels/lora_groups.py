"""peft's LoRA layers, switched over to `lora_linear` where they mean what that computes.

Which layers read the same input is seen, not guessed from names: the model runs once on a few tokens, and layers that were given the
very same tensor are a group. The first layer of a group to be called computes all of it; the others, called with that same
tensor, take what is theirs. Any other call, and any layer in another state (dropout at work, adapter merged, switched off or one
of several, DoRA and other variants, quantised or trained base weights, mixed number formats), runs peft's own forward.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tunewright.kernels.lora_linear import Adapted, lora_linear
from tunewright.kernels.probe import TOLERANCE, probe_tokens, quiet_run
from tunewright.kernels.verdicts import Ask, prove_anew

if TYPE_CHECKING:
    from peft.tuners.lora import Linear


@dataclass(slots=True)
class _Group:
    """Layers that read one input. `waiting`: outputs that were computed for `source` and not yet asked for."""

    layers: tuple[Linear, ...]
    source: Tensor | None = None
    version: int = 0
    waiting: dict[int, Tensor] = field(default_factory=dict)


def switch_over(model: nn.Module, ask: Ask = prove_anew) -> int:
    """Give every plain LoRA layer of the model the fast forward, shown to do what peft's does; returns how many have it."""
    return _switch(_proven(_groups(model, ask), ask))


def switch_over_unproven(model: nn.Module) -> int:
    """`switch_over` for a model that has shapes and no numbers to try it on, as the planner makes one."""
    return _switch(_groups(model, prove_anew))


def _switch(groups: Sequence[_Group]) -> int:
    for group in groups:
        for place, layer in enumerate(group.layers):
            layer.forward = partial(_forward, group, place)
    return sum(len(group.layers) for group in groups)


def switch_back(model: nn.Module) -> None:
    """Give the layers their own forward again."""
    for layer in _lora_layers(model):
        layer.__dict__.pop("forward", None)


def _forward(group: _Group, place: int, hidden: Tensor, *arguments: Any, **settings: Any) -> Tensor:
    layer = group.layers[place]
    if arguments or settings or hidden.is_inference():  # whether such a tensor was changed in place, torch does not say
        return type(layer).forward(layer, hidden, *arguments, **settings)
    if group.source is hidden and group.version == hidden._version and place in group.waiting:
        return _take(group, place)
    parts = _parts(group.layers, hidden)
    if parts is None:
        single = _parts((layer,), hidden)
        return type(layer).forward(layer, hidden) if single is None else lora_linear(_cast(hidden), single)[0]
    found = lora_linear(_cast(hidden), parts)  # gradient checkpointing may leave this by an exception, and nothing must stay behind
    group.source, group.version, group.waiting = hidden, hidden._version, dict(enumerate(found))
    return _take(group, place)


def _take(group: _Group, place: int) -> Tensor:
    found = group.waiting.pop(place)
    if not group.waiting:
        group.source = None
    return found


def _parts(layers: Sequence[Linear], hidden: Tensor) -> tuple[Adapted, ...] | None:
    """What `lora_linear` takes, if every layer is in the state that it is meant for."""
    found = [_part(layer, hidden) for layer in layers]
    return None if any(one is None for one in found) else tuple(one for one in found if one is not None)


def _part(layer: Linear, hidden: Tensor) -> Adapted | None:
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if len(names) != 1 or layer.disable_adapters or layer.merged or names[0] in layer.lora_variant:
        return None
    (name,) = names
    base, down, up, dropout = layer.base_layer, layer.lora_A[name], layer.lora_B[name], layer.lora_dropout[name]
    if type(base) is not nn.Linear or any(one is not None and one.requires_grad for one in base._parameters.values()):
        return None
    if up.bias is not None or (layer.training and not isinstance(dropout, nn.Identity)):
        return None
    narrow = _narrow(hidden)
    if narrow is None and not base.weight.dtype == down.weight.dtype == up.weight.dtype == hidden.dtype:
        return None
    plain = Adapted(base.weight, base.bias, down.weight, up.weight, layer.scaling[name])
    return plain if narrow is None else Adapted(
        plain.weight.to(narrow), None if plain.bias is None else plain.bias.to(narrow), plain.down.to(narrow), plain.up.to(narrow),
        plain.scaling)


def _narrow(hidden: Tensor) -> torch.dtype | None:
    """The number format that autocast would compute in, if it is on."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def _cast(hidden: Tensor) -> Tensor:
    narrow = _narrow(hidden)
    return hidden if narrow is None else hidden.to(narrow)


def _lora_layers(model: nn.Module) -> list[Linear]:
    from peft.tuners.lora import Linear

    return [module for module in model.modules() if type(module) is Linear]


def _groups(model: nn.Module, ask: Ask) -> list[_Group]:
    """The layers by the input that they were given in one forward pass; those that did not run each by itself."""
    names = {layer: name for name, layer in model.named_modules()}
    layers = {names[layer]: layer for layer in _lora_layers(model)}
    return [_Group(tuple(layers[name] for name in several))
            for several in ask("LoRA layers that read one input", partial(_sharing, model, layers))]


def _sharing(model: nn.Module, layers: Mapping[str, Linear]) -> list[list[str]]:
    """Names of layers by the input that they read."""
    seen: dict[int, tuple[Tensor, list[str]]] = {}
    with _watched(layers, seen), quiet_run(model):
        model(input_ids=probe_tokens(model), use_cache=False)
    grouped = {name for _, several in seen.values() for name in several}
    return [*(several for _, several in seen.values()), *([name] for name in layers if name not in grouped)]


def _proven(groups: Sequence[_Group], ask: Ask) -> list[_Group]:
    """Those whose kind (shapes, number formats, ranks) passes its proof."""
    kinds = {group.layers: f"LoRA of {', '.join(map(_kind, group.layers))}" for group in groups}
    examples = {kind: layers for layers, kind in kinds.items()}
    reasons = {kind: ask(kind, partial(_disproof, layers)) for kind, layers in examples.items()}
    return [group for group in groups if reasons[kinds[group.layers]] is None]


def _kind(layer: Linear) -> str:
    return " + ".join(f"{tuple(weight.shape)} {weight.dtype} {weight.device}" for weight in layer.parameters())


def _disproof(layers: Sequence[Linear]) -> str | None:
    """Output and gradients of the input and of every A and B against peft's, with random B: those of a new adapter are zeros, and zeros
    prove nothing. Layers for which peft's own forward runs anyway need no proof."""
    if any(type(layer.base_layer) is not nn.Linear for layer in layers):
        return None
    weight = layers[0].weight
    generator = torch.Generator().manual_seed(0)
    hidden = _random((3, layers[0].in_features), generator, weight)
    with quiet_run(nn.ModuleList(layers)), torch.enable_grad():
        parts = _parts(layers, hidden)
        if parts is None:
            return None
        trials = tuple(part._replace(down=part.down.detach().requires_grad_(), up=_random(part.up.shape, generator, part.up))
                       for part in parts)
        asked = (hidden, *(one.down for one in trials), *(one.up for one in trials))
        ours = _with_slopes(lora_linear(hidden, trials), asked)
        own = _with_slopes(tuple(functional_call(layer, _weights(layer, one), (hidden,))
                                 for layer, one in zip(layers, trials, strict=True)), asked)
    kind = weight.dtype
    is_same = all(float((one - two).abs().max()) <= TOLERANCE.get(kind, 1e-5) * float(two.abs().max()) for one, two in zip(
        ours, own, strict=True))
    return None if is_same else "it computes something else"


def _weights(layer: Linear, part: Adapted) -> dict[str, Tensor]:
    """The layer's A and B by their names."""
    (name,) = (name for name in layer.active_adapters if name in layer.lora_A)
    return {f"lora_A.{name}.weight": part.down, f"lora_B.{name}.weight": part.up}


def _random(shape: Sequence[int], generator: torch.Generator, like: Tensor) -> Tensor:
    drawn = torch.randn(tuple(shape), generator=generator, dtype=torch.float64)
    return drawn.to(like.device, like.dtype).requires_grad_()


def _with_slopes(outputs: tuple[Tensor, ...], asked: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The outputs, and the gradients of what was asked for by a weighted sum of them."""
    weights = [torch.cos(torch.arange(one.numel(), device=one.device)).view_as(one).to(one.dtype) for one in outputs]
    return (*(one.detach() for one in outputs), *torch.autograd.grad(outputs, asked, weights))


@contextmanager
def _watched(layers: Mapping[str, Linear], seen: dict[int, tuple[Tensor, list[str]]]) -> Iterator[None]:
    """Inside, every call of a layer is noted under its input, which is kept so that no other takes its place in memory."""
    def note(name: str, layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        several = seen.setdefault(id(arguments[0]), (arguments[0], []))[1]
        if name not in several:
            several.append(name)

    hooks = [layer.register_forward_pre_hook(partial(note, name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

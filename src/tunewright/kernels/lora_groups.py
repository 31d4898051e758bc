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
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tunewright.kernels.lora_linear import Adapted, lora_linear
from tunewright.kernels.probe import TOLERANCE, probe_tokens, quiet_run
from tunewright.kernels.taken import Taken, counted
from tunewright.kernels.verdicts import Ask, prove_anew
from tunewright.models.families import is_packed

if TYPE_CHECKING:
    from peft.tuners.lora import Linear, LoraLayer


@dataclass(slots=True)
class _Group:
    """Layers that read one input. `waiting`: outputs that were computed for `source` and not yet asked for."""

    layers: tuple[Linear, ...]
    source: Tensor | None = None
    version: int = 0
    waiting: dict[int, Tensor] = field(default_factory=dict)


def switch_over(model: nn.Module, ask: Ask = prove_anew, narrow: torch.dtype | None = None) -> Taken:
    """Give every plain LoRA layer of the model the fast forward, shown to do what peft's does; says which of all adapted layers take it in
    training. `narrow`: the number format of mixed precision. Layers that drop inputs in training take it without dropout only."""
    groups = _groups(model, ask)
    against = _disproofs(groups, ask, narrow)
    _switch([group for group, reason in zip(groups, against, strict=True) if reason is None])
    disproven = {layer: reason for group, reason in zip(groups, against, strict=True) for layer in group.layers}
    return counted(_obstacle_in_training(layer, narrow) or disproven.get(layer) for layer in _adapted_layers(model))


def switch_over_unproven(model: nn.Module) -> None:
    """`switch_over` for a model that has shapes and no numbers to try it on, as the planner makes one."""
    _switch(_groups(model, prove_anew))


def _switch(groups: Sequence[_Group]) -> None:
    for group in groups:
        for place, layer in enumerate(group.layers):
            layer.forward = partial(_forward, group, place)


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
    names = _active(layer)
    if _obstacle(layer, names) is not None or (layer.training and _drops(layer, names)):
        return None
    (name,) = names
    base, down, up, narrow = layer.base_layer, layer.lora_A[name].weight, layer.lora_B[name].weight, _narrow(hidden)
    if narrow is None and not base.weight.dtype == down.dtype == up.dtype == hidden.dtype:
        return None
    plain = Adapted(base.weight, base.bias, down, up, layer.scaling[name])
    return plain if narrow is None else Adapted(
        plain.weight.to(narrow), None if plain.bias is None else plain.bias.to(narrow), plain.down.to(narrow), plain.up.to(narrow),
        plain.scaling)


def _active(layer: Linear) -> list[str]:
    """The adapters of the layer that are at work."""
    return [name for name in layer.active_adapters if name in layer.lora_A]


def _obstacle(layer: Linear, names: Sequence[str]) -> str | None:
    """Why peft's own forward computes a layer with these adapters at work, in training and without; or None."""
    base = layer.base_layer
    if type(base) is not nn.Linear:
        return _foreign(base)
    if layer.disable_adapters or layer.merged:
        return "the adapter is switched off or merged"
    if len(names) != 1:
        return "several active adapters" if names else "no active adapter"
    if names[0] in layer.lora_variant:
        variant = type(layer.lora_variant[names[0]]).__name__
        return _VARIANTS.get(variant, variant)
    if any(one is not None and one.requires_grad for one in base._parameters.values()):
        return "a trained base weight or bias"
    return None if layer.lora_B[names[0]].bias is None else "a bias of the update"


_VARIANTS: Final = {"DoraLinearVariant": "DoRA"}
"""Of classes in peft: what users call them."""


def _foreign(base: nn.Module) -> str:
    if any(map(is_packed, base.parameters())):
        return "quantised base weights"
    return f"{type(base).__name__} in place of a linear layer"


def _obstacle_in_training(layer: LoraLayer, narrow: torch.dtype | None) -> str | None:
    """Why it computes a layer of whatever kind in training, or None."""
    from peft.tuners.lora import Linear

    if type(layer) is not Linear:
        return _foreign(layer.get_base_layer())
    names = _active(layer)
    reason = _obstacle(layer, names) or ("dropout at work" if _drops(layer, names) else None)
    return "weights in several number formats" if reason is None and narrow is None and len(_formats(layer)) > 1 else reason


def _drops(layer: Linear, names: Sequence[str]) -> bool:
    return any(not isinstance(layer.lora_dropout[name], nn.Identity) for name in names)


def _formats(layer: Linear) -> set[torch.dtype]:
    """The number formats of the weight and of A and B."""
    return {layer.base_layer.weight.dtype, *(part[name].weight.dtype for name in _active(layer) for part in (layer.lora_A, layer.lora_B))}


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


def _adapted_layers(model: nn.Module) -> list[LoraLayer]:
    """Those of peft's other kinds too: over quantised weights, embeddings, experts."""
    from peft.tuners.lora import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def _groups(model: nn.Module, ask: Ask) -> list[_Group]:
    """The layers by the input that they were given in one forward pass; those that did not run each by itself."""
    names = {layer: name for name, layer in model.named_modules()}
    layers = {names[layer]: layer for layer in _lora_layers(model)}
    if not layers:
        return []
    return [_Group(tuple(layers[name] for name in several))
            for several in ask("LoRA layers that read one input", partial(_sharing, model, layers))]


def _sharing(model: nn.Module, layers: Mapping[str, Linear]) -> list[list[str]]:
    """Names of layers by the input that they read."""
    seen: dict[int, tuple[Tensor, list[str]]] = {}
    with _watched(layers, seen), quiet_run(model):
        model(input_ids=probe_tokens(model), use_cache=False)
    grouped = {name for _, several in seen.values() for name in several}
    return [*(several for _, several in seen.values()), *([name] for name in layers if name not in grouped)]


def _disproofs(groups: Sequence[_Group], ask: Ask, narrow: torch.dtype | None) -> list[str | None]:
    """For each group why its kind (shapes, number formats, ranks) fails its proof, or None. Of layers for which peft's own forward runs
    anyway nothing is asked: a later run of these shapes may be without what stands in their way."""
    plain = [tuple(layer for layer in group.layers if _obstacle(layer, _active(layer)) is None) for group in groups]
    found: dict[str, str | None] = {}
    for layers in plain:
        kind = _question(layers, narrow)
        if layers and kind not in found:
            found[kind] = ask(kind, partial(_disproof, layers, narrow))
    return [found.get(_question(layers, narrow)) for layers in plain]


def _question(layers: Sequence[Linear], narrow: torch.dtype | None) -> str:
    mixed = f" under autocast to {narrow}" if narrow is not None and _are_mixed(layers) else ""
    return f"LoRA of {', '.join(map(_kind, layers))}{mixed}"


def _kind(layer: Linear) -> str:
    return " + ".join(f"{tuple(weight.shape)} {weight.dtype} {weight.device}" for weight in layer.parameters())


def _are_mixed(layers: Sequence[Linear]) -> bool:
    return any(len(_formats(layer)) > 1 for layer in layers)


def _disproof(layers: Sequence[Linear], narrow: torch.dtype | None) -> str | None:
    """Output and gradients of the input and of every A and B against peft's, with random B: those of a new adapter are zeros, and zeros
    prove nothing. Weights in several number formats are tried under autocast."""
    weight = layers[0].weight
    mixed = narrow is not None and _are_mixed(layers)
    generator = torch.Generator().manual_seed(0)
    hidden = _random((3, layers[0].in_features), generator, weight)
    with quiet_run(nn.ModuleList(layers)), torch.enable_grad(), torch.autocast(weight.device.type, narrow, enabled=mixed):
        parts = _parts(layers, hidden)
        if parts is None:
            return None
        trials = tuple(part._replace(down=part.down.detach().requires_grad_(), up=_random(part.up.shape, generator, part.up))
                       for part in parts)
        asked = (hidden, *(one.down for one in trials), *(one.up for one in trials))
        ours = _with_slopes(lora_linear(_cast(hidden), trials), asked)
        own = _with_slopes(tuple(functional_call(layer, _weights(layer, one), (hidden,))
                                 for layer, one in zip(layers, trials, strict=True)), asked)
    tolerance = TOLERANCE.get(ours[0].dtype, 1e-5)
    is_same = all(float((one - two).abs().max()) <= tolerance * float(two.abs().max()) for one, two in zip(ours, own, strict=True))
    return None if is_same else "it computes something else"


def _weights(layer: Linear, part: Adapted) -> dict[str, Tensor]:
    """The layer's A and B by their names."""
    (name,) = _active(layer)
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

"""Parameter groups: which trainable weights are decayed, and at which rate LoRA+ trains each.

Every trainable parameter is in exactly one group, in the order of `named_parameters()`; that order is what a checkpoint's
optimizer state refers to, so it must not depend on anything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

Group = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rates:
    """Learning rates and weight decay of the groups. `ratio` is that of B to A in LoRA+, absent for ordinary training."""

    learning_rate: float
    weight_decay: float
    ratio: float | None = None
    embedding: float = 1e-6


def parameter_groups(model: nn.Module, rates: Rates) -> list[Group]:
    """Decayed weights, then the biases and norms, which are not (Loshchilov & Hutter 2017 leave this open; it is the custom).

    Empty groups are left out.
    """
    if rates.ratio is not None:
        return _loraplus_groups(model, rates, rates.ratio)
    plain = undecayed(model)
    trainable = _trainable(model)
    decayed = [tensor for name, tensor in trainable.items() if name not in plain]
    rest = [tensor for name, tensor in trainable.items() if name in plain]
    return _filled([_group(decayed, rates.learning_rate, rates.weight_decay), _group(rest, rates.learning_rate, 0.0)])


def undecayed(model: nn.Module) -> frozenset[str]:
    """Names of biases and of every weight that a norm layer holds.

    A norm is known by its class: torch's own kinds, and the models' own, whose class names end in `Norm`.
    """
    return frozenset(
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
        if "bias" in name or _is_norm(module))


def _is_norm(module: nn.Module) -> bool:
    from torch import nn

    known = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
    return isinstance(module, known) or type(module).__name__.endswith("Norm")


def _loraplus_groups(model: nn.Module, rates: Rates, ratio: float) -> list[Group]:
    """LoRA+ (Hayou et al. 2024): A at the base rate, B and vectors at `ratio` times it, adapters of embeddings at their own.

    The same groups as peft's `create_loraplus_optimizer`, save that no norm is decayed there or here, whatever its class.
    """
    plain, embeddings = undecayed(model), _embedding_adapters(model)
    slow: list[nn.Parameter] = []
    fast: list[nn.Parameter] = []
    fast_plain: list[nn.Parameter] = []
    embedded: list[nn.Parameter] = []
    for name, tensor in _trainable(model).items():
        if name.startswith(embeddings):
            embedded.append(tensor)
        elif "lora_B" in name or tensor.ndim == 1:
            (fast_plain if name in plain else fast).append(tensor)
        else:
            slow.append(tensor)
    rate, decay = rates.learning_rate, rates.weight_decay
    return _filled([_group(slow, rate, decay), _group(embedded, rates.embedding, decay),
                    _group(fast, rate * ratio, decay), _group(fast_plain, rate * ratio, 0.0)])


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """The parameters of all groups, in the order that the optimizer counts them in."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _embedding_adapters(model: nn.Module) -> tuple[str, ...]:
    """Name prefixes of the embedding layers that carry an adapter."""
    from peft.tuners.lora.layer import Embedding

    return tuple(f"{path}." for path, module in model.named_modules() if isinstance(module, Embedding))


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}


def _group(params: list[nn.Parameter], rate: float, weight_decay: float) -> Group:
    return {"params": params, "lr": rate, "weight_decay": weight_decay}


def _filled(groups: list[Group]) -> list[Group]:
    return [group for group in groups if group["params"]]

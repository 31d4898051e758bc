"""Hidden states instead of logits: how a causal language model is run up to its output projection, without a change to its code.

A hook before the projection takes the hidden states of the positions that are kept and hands the projection none of them, so the
model's own forward runs to its end (auxiliary losses included) and its logits are empty. What the model does to logits afterwards,
a factor or a soft cap, is read from its configuration and then proven: the model's own logits on a few tokens must be those that
`Shape` describes, or the model keeps its logits.

Behind the attention of the last layer, no position reads another one. What it computes there for positions that are not kept is not
computed either: hooks around the layer's output projection and MLP hand them the kept positions, and put zeros in the places of the others,
whose hidden states nothing reads. That too is tried on a few tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from tunewright.errors import InputError
from tunewright.kernels.linear_cross_entropy import Head, Shape, entropies, linear_cross_entropy, linear_cross_entropy_sum, top_ranked
from tunewright.kernels.probe import LOG_PROB_TOLERANCE, probe_tokens, quiet_run
from tunewright.kernels.verdicts import Ask, prove_anew
from tunewright.models.families import decoder_layers

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedModel

_NAME: Final = "_tunewright_output_head"
"""Attribute of a projection that has been taken over: nothing outside a model keeps it in memory."""
_WORTH_IT: Final = 0.9
"""Part of the positions from which on taking them out and putting them back is no gain."""


class LastLayer(NamedTuple):
    """`parts` of the last decoder layer that take each position by itself, behind its attention; `around`: the layer and what it is in."""

    parts: tuple[nn.Module, ...]
    around: tuple[nn.Module, ...]

    def runs_once(self) -> bool:
        """Whether it runs as the model has it: neither compiled, nor again in the backward pass, when hooks are no longer there."""
        return not any("forward" in module.__dict__ or (module.training and getattr(module, "gradient_checkpointing", False))
                       for module in self.around)


@dataclass(frozen=True, slots=True)
class OutputHead:
    """A projection that has been taken over, and what its products become. `last`: what before it may be left out, if anything."""

    projection: nn.Linear
    shape: Shape
    last: LastLayer | None = None

    def weights(self, hidden: Tensor) -> Head:
        """The projection's weight and bias as they are now; without autocast in the number format of the hidden states, for which frozen
        ones may have to be widened (`kernels.frozen_weights`)."""
        own = Head(self.projection.weight, self.projection.bias)
        as_it_is = own.weight.dtype == hidden.dtype or torch.is_autocast_enabled(hidden.device.type)
        return own if as_it_is else Head(own.weight.to(hidden.dtype), None if own.bias is None else own.bias.to(hidden.dtype))

    def loss_sum(self, hidden: Tensor, targets: Tensor, smoothing: float = 0.0, z_weight: float = 0.0) -> Tensor:
        """Cross-entropy, with `z_weight` times the z-loss, summed over rows: hidden [N, D], targets [N] -> scalar."""
        return linear_cross_entropy_sum(hidden, self.weights(hidden), targets, replace(self.shape, smoothing=smoothing, z_weight=z_weight))

    def log_probs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Log-probability of each target: hidden [N, D], targets [N] -> [N]."""
        return -linear_cross_entropy(hidden, self.weights(hidden), targets, self.shape)

    def entropies(self, hidden: Tensor) -> Tensor:
        """Entropy of each distribution over the vocabulary, in nats, without a gradient: hidden [N, D] -> [N]."""
        return entropies(hidden, self.weights(hidden), self.shape)

    def correct(self, hidden: Tensor, targets: Tensor) -> int:
        """How many targets are ranked first."""
        return top_ranked(hidden, self.weights(hidden), targets, self.shape)


def adopt(model: PreTrainedModel, chunk: int | None = None, ask: Ask = prove_anew) -> str | None:
    """Take the model's output projection over; the reason if that cannot be done, None if it has been. `chunk`: see `Shape`."""
    projection = _projection(model)
    reason = _obstacle(projection)
    if reason is None and isinstance(projection, nn.Linear):
        head = OutputHead(projection, replace(_shape_of(model), chunk=chunk))
        reason = ask("loss from hidden states", partial(_disproof, model, head))
        if reason is None:
            trimmed = replace(head, last=_last_layer(model))
            kept_whole = trimmed.last is None or ask("last layer at kept positions", partial(_disproof_of_last, model, trimmed))
            _adopt(model, head if kept_whole else trimmed)
    return reason


def adopt_unproven(model: PreTrainedModel, chunk: int | None = None) -> str | None:
    """`adopt` for a model that has shapes and no numbers to try it on, as the planner makes one."""
    projection = _projection(model)
    reason = _obstacle(projection)
    if reason is None and isinstance(projection, nn.Linear):
        _adopt(model, OutputHead(projection, replace(_shape_of(model), chunk=chunk), _last_layer(model)))
    return reason


def _adopt(model: PreTrainedModel, head: OutputHead) -> None:
    """Remember the head; and, of a projection that is trained as a copy, the one that a reference without the adapter uses."""
    setattr(head.projection, _NAME, head)
    original = getattr(model.get_output_embeddings(), "original_module", None)
    if isinstance(original, nn.Linear):
        setattr(original, _NAME, replace(head, projection=original))


def of(policy: nn.Module) -> OutputHead | None:
    """The head of a model, which may be wrapped for several ranks, if it has been taken over."""
    while not hasattr(policy, "get_output_embeddings") and isinstance(getattr(policy, "module", None), nn.Module):
        policy = policy.module  # type: ignore[assignment]
    projection = _projection(policy) if hasattr(policy, "get_output_embeddings") else None
    return None if projection is None else vars(projection).get(_NAME)


@contextmanager
def hidden_states(head: OutputHead, kept: Tensor | None = None) -> Iterator[list[Tensor]]:
    """Inside, a forward pass of the model appends its last hidden states [B, K, D] to the list and makes no logits. `kept` [K]: the
    positions of each row that it is told to keep, if no other is read; it need not compute the others to the end."""
    taken: list[Tensor] = []

    def take(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        taken.append(arguments[0])
        return (arguments[0][:, :0], *arguments[1:])

    hooks = [head.projection.register_forward_pre_hook(take)]
    if kept is not None and head.last is not None and head.last.runs_once():
        hooks += [hook for part in head.last.parts for hook in _only(part, kept)]
    try:
        yield taken
    finally:
        for hook in hooks:
            hook.remove()


def _only(part: nn.Module, kept: Tensor) -> tuple[RemovableHandle, RemovableHandle]:
    """Hooks that let a module [B, S, D] -> [B, S, E] see the kept positions alone; zeros come in the places of the others."""
    lengths: list[int] = []

    def gather(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = arguments[0]
        lengths.append(hidden.shape[1])
        return (hidden.index_select(1, kept), *arguments[1:]) if kept.numel() < _WORTH_IT * hidden.shape[1] else arguments

    def scatter(_: nn.Module, arguments: tuple[Any, ...], found: Tensor) -> Tensor:
        length = lengths.pop()
        if found.shape[1] == length:
            return found
        return found.new_zeros(found.shape[0], length, found.shape[-1]).index_copy(1, kept, found)

    return part.register_forward_pre_hook(gather), part.register_forward_hook(scatter)


def last_hidden_states(policy: nn.Module, inputs: Mapping[str, Any], kept: Tensor) -> Tensor:
    """The last hidden states of a model at the positions `kept` [K] of each row: [B, K, D], what its output projection reads.

    Where the projection has been taken over, no logits are made; the other models make those of the kept positions, and keep the hidden
    states of every layer meanwhile. `inputs`: keyword arguments of the model.
    """
    head = of(policy)
    if head is None:
        found: Tensor = policy(**inputs, logits_to_keep=kept, output_hidden_states=True, use_cache=False).hidden_states[-1]
        return found[:, kept]
    with hidden_states(head, kept) as taken:
        policy(**inputs, logits_to_keep=kept, use_cache=False)
    return taken[0]


def _projection(model: nn.Module) -> nn.Module | None:
    """What makes the logits; of a projection that peft trains as a whole beside its adapters, the copy that is trained."""
    from peft.utils.other import ModulesToSaveWrapper

    found: nn.Module | None = model.get_output_embeddings()  # type: ignore[operator]
    if not isinstance(found, ModulesToSaveWrapper) or found.disable_adapters or len(found.active_adapters) != 1:
        return found
    return found.modules_to_save[found.active_adapters[0]]


def _obstacle(projection: nn.Module | None) -> str | None:
    if projection is None:
        return "the model has no output projection"
    if type(projection) is not nn.Linear:
        return f"the output projection is a {type(projection).__name__}"
    return None


def _shape_of(model: PreTrainedModel) -> Shape:
    """What the configuration says of the logits: Granite divides them, Cohere multiplies, Gemma 2 caps."""
    settings = model.config.get_text_config()
    scale = (getattr(settings, "logit_scale", None) or 1.0) / (getattr(settings, "logits_scaling", None) or 1.0)
    scale *= getattr(settings, "lm_head_multiplier", None) or 1.0
    return Shape(scale=scale, softcap=getattr(settings, "final_logit_softcapping", None))


def _last_layer(model: nn.Module) -> LastLayer | None:
    """What of the last decoder layer lies behind its attention and mixes no tokens, by the names that most families give it; nothing where
    something is drawn for each token. Experts count their tokens."""
    try:
        layers = decoder_layers(model)
    except InputError:
        return None
    layer = layers.modules[-1]
    inside = dict(layer.named_modules())
    drops = any(isinstance(module, nn.Dropout) and module.p > 0 for module in inside.values())
    if drops or "mlp.down_proj" not in inside or "mlp.experts" in inside or "self_attn.o_proj" not in inside:
        return None
    names = accumulate(f"{layers.prefix}.{len(layers.modules) - 1}".split("."), lambda outer, inner: f"{outer}.{inner}")
    return LastLayer((inside["self_attn.o_proj"], inside["mlp"]), (model, *(model.get_submodule(name) for name in names)))


def _disproof_of_last(model: PreTrainedModel, head: OutputHead) -> str | None:
    """Run the model on a few tokens with all hidden states and with every second; how the latter differ, if they do."""
    ids = probe_tokens(model)
    kept = torch.arange(0, ids.shape[1], 2, device=ids.device)
    with quiet_run(model):
        expected, found = (_taken(model, one, ids, kept) for one in (replace(head, last=None), head))
    worst = float((found.double() - expected.double()).abs().max())
    is_near = worst <= LOG_PROB_TOLERANCE.get(expected.dtype, 1e-4) * float(expected.abs().max())
    return None if is_near else f"the last layer mixes tokens behind its attention (by {worst:.1e})"


def _taken(model: PreTrainedModel, head: OutputHead, ids: Tensor, kept: Tensor) -> Tensor:
    with hidden_states(head, kept) as taken:
        model(input_ids=ids, use_cache=False, logits_to_keep=kept)
    return taken[0]


def _disproof(model: PreTrainedModel, head: OutputHead) -> str | None:
    """Run the model on a few tokens both ways; how they differ, if they do."""
    ids = probe_tokens(model)
    with quiet_run(model):
        expected = model(input_ids=ids, use_cache=False).logits[0]
        with hidden_states(head) as taken:
            model(input_ids=ids, use_cache=False, logits_to_keep=torch.arange(ids.shape[1], device=ids.device))
        if len(taken) != 1 or taken[0].shape[:2] != ids.shape:
            return f"the output projection is applied {len(taken)} times"
        targets = expected.argmax(-1)
        found = head.log_probs(taken[0][0], targets)
    wanted = torch.log_softmax(expected.double(), -1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    worst = float((found.double() - wanted).abs().max())
    is_near = worst <= LOG_PROB_TOLERANCE.get(expected.dtype, 1e-4)
    return None if is_near else f"the model changes its logits in a way of its own (by {worst:.1e})"

"""One optimizer step on a micro-batch of a given shape, run without numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from tunewright.errors import InputError
from tunewright.kernels import output_head
from tunewright.models.families import decoder_layers
from tunewright.planning.meter import Kind, Meter, Work

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from tunewright.planning.machine import Machine
    from tunewright.planning.shapes import ShapeModel


@dataclass(frozen=True, slots=True)
class BatchShape:
    """The lengths of a micro-batch's rows in tokens, of each packed sequence those of its rows; laid end to end (`flat`) or padded to
    the longest sequence. `trained`: share of the tokens that have a label."""

    sequences: tuple[tuple[int, ...], ...]
    flat: bool
    trained: float = 1.0

    @property
    def tokens(self) -> int:
        """Tokens, without padding."""
        return sum(map(sum, self.sequences))

    @property
    def positions(self) -> int:
        """Positions that are computed."""
        return self.tokens if self.flat else len(self.sequences) * max(map(sum, self.sequences))

    @property
    def squares(self) -> int:
        """Pairs of positions that attention looks at, but for a factor."""
        if self.flat:
            return sum(length * length for rows in self.sequences for length in rows)
        return len(self.sequences) * max(map(sum, self.sequences)) ** 2


@dataclass(frozen=True, slots=True)
class Setting:
    """What decides the memory of a step besides model and batch. `autocast`: the format of mixed precision; `state_bytes` and
    `update_bytes`: what the optimizer keeps, and needs for a moment; `held`: gradients are there when the
    forward pass begins (accumulation); `exchanged`: bytes of the copies of gradients that ranks exchange."""

    autocast: torch.dtype | None
    state_bytes: int
    update_bytes: int
    held: bool
    exchanged: int


@dataclass(frozen=True, slots=True)
class Step:
    """What a step takes. `peak`: by kind, at the moment at which the sum is largest; `kept`: bytes that all decoder layers together
    keep from the forward for the backward pass; `layers`: how many they are."""

    peak: Mapping[Kind, int]
    kept: int
    layers: int
    work: Work

    @property
    def bytes(self) -> int:
        """The most that is live at one time."""
        return sum(self.peak.values())


def simulate(shaped: ShapeModel, batch: BatchShape, setting: Setting, machine: Machine) -> Step:
    """Forward, loss and backward of one micro-batch. Leaves no gradients and no hooks on the model."""
    layers, depth = _layers(shaped.model), shaped.depth
    found = _run(shaped, batch, setting, machine)
    if depth is None:
        return found.step(len(layers))
    with depth.less_one():
        less = _run(shaped, batch, setting, machine)
    return found.further(less, depth.count - len(layers)).step(depth.count)


@dataclass(frozen=True, slots=True)
class Passes:
    """What was counted in one step. `moments`: the most that was live in each part of it, by kind."""

    moments: Mapping[str, Mapping[Kind, int]]
    kept: int
    work: Work

    def step(self, layers: int) -> Step:
        """The step, at the moment of its peak."""
        return Step(max(self.moments.values(), key=lambda live: sum(live.values())), self.kept, layers, self.work)

    def further(self, less: Passes, layers: int) -> Passes:
        """The same with more layers, by the difference that one of them makes."""
        moments = {name: {kind: size + layers * (size - less.moments[name].get(kind, 0)) for kind, size in live.items()}
                   for name, live in self.moments.items() if name in less.moments}
        own, its = self.work, less.work
        work = Work(*(one + layers * (one - other) for one, other in zip(own.figures(), its.figures(), strict=True)))
        return Passes(moments, self.kept + layers * (self.kept - less.kept), work)


def _run(shaped: ShapeModel, batch: BatchShape, setting: Setting, machine: Machine) -> Passes:
    formats = {weight.dtype for weight in shaped.model.parameters() if weight.is_floating_point()}
    meter = Meter(machine, formats if setting.autocast is None else formats | {setting.autocast})
    hooks = [
        weight.register_post_accumulate_grad_hook(lambda one: meter.hold(one.grad, Kind.GRADIENTS))  # type: ignore[no-untyped-call]
        for weight in shaped.model.parameters() if weight.requires_grad]
    hooks += _marks(_layers(shaped.model), meter)
    try:
        with shaped.mode:
            _hold_weights(meter, shaped, setting)
            inputs, kept = _inputs(batch)
            with meter:
                for tensor in (*inputs.values(), kept):
                    if isinstance(tensor, Tensor):
                        meter.hold(tensor, Kind.BATCH)
                before = meter.total
                with nullcontext() if setting.autocast is None else torch.autocast("cpu", setting.autocast):
                    loss, retained = _forward(shaped.model, inputs, kept, batch, meter)
                shaped.mode.forget()
                meter.kind = Kind.WORKSPACE
                meter.enter(_BACKWARD)
                shaped.mode.backward(loss)
                meter.enter("update")
                meter.charge(Kind.WORKSPACE, setting.update_bytes)
            return Passes(meter.moments, retained - before, meter.work)
    finally:
        for hook in hooks:
            hook.remove()
        shaped.model.zero_grad(set_to_none=True)


_BACKWARD: Final = "loss, and the last layer's backward pass"


def _marks(layers: Sequence[nn.Module], meter: Meter) -> list[Any]:
    """Hooks that tell the meter which part of the step runs: the forward pass with the last layer's backward pass, those between, the
    first layer's, and what lies before it."""
    def mark(number: int, arguments: tuple[Any, ...], settings: Mapping[str, Any]) -> None:
        hidden = arguments[0] if arguments else settings.get("hidden_states")
        if meter.kind is Kind.ACTIVATIONS and isinstance(hidden, Tensor) and hidden.requires_grad:  # not where it is recomputed
            after = ("the embedding's backward pass", "the first layer's backward pass")
            hidden.register_hook(  # type: ignore[no-untyped-call]
                lambda _: meter.enter(after[number] if number < len(after) else "backward passes between"))

    return [layer.register_forward_pre_hook(lambda _, given, named, number=number: mark(number, given, named), with_kwargs=True)
            for number, layer in enumerate(layers)]


def _hold_weights(meter: Meter, shaped: ShapeModel, setting: Setting) -> None:
    for name, weight in shaped.model.named_parameters():
        is_adapter = "lora_" in name or ".modules_to_save." in name
        meter.hold(weight, Kind.ADAPTERS if is_adapter else Kind.WEIGHTS, shaped.bytes_of(weight))
        if weight.requires_grad and setting.held:
            weight.grad = torch.empty_like(weight)
            meter.hold(weight.grad, Kind.GRADIENTS)
    for buffer in shaped.model.buffers():
        meter.hold(buffer, Kind.WEIGHTS)
    meter.charge(Kind.OPTIMIZER, setting.state_bytes)
    meter.charge(Kind.GRADIENTS, setting.exchanged)


def _inputs(batch: BatchShape) -> tuple[dict[str, Any], Tensor]:
    """Keyword arguments of the model as `stages.causal_lm.model_inputs` makes them, and the kept positions."""
    rows = 1 if batch.flat else len(batch.sequences)
    width = batch.tokens if batch.flat else max(map(sum, batch.sequences))
    ids, positions = (torch.zeros(rows, width, dtype=torch.int64) for _ in range(2))
    kept = torch.zeros(max(1, round(width * (batch.trained if batch.flat else min(1.0, batch.trained * rows)))), dtype=torch.int64)
    inputs: dict[str, Any] = {"input_ids": ids, "position_ids": positions}
    if not batch.flat:
        return {**inputs, "attention_mask": torch.ones(rows, width, dtype=torch.int64)}, kept
    lengths = [length for sequence in batch.sequences for length in sequence]
    bounds = Bounds(accumulate(lengths, initial=0))
    return {**inputs, "attention_mask": None, "cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds,
            "max_length_q": max(lengths), "max_length_k": max(lengths)}, kept


class Bounds(list[int]):
    """Where rows end, as numbers: a tensor that can be asked for them does not exist here."""

    def tolist(self) -> list[int]:
        """What attention asks for."""
        return list(self)

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


def _forward(model: nn.Module, inputs: Mapping[str, Any], kept: Tensor, batch: BatchShape, meter: Meter) -> tuple[Tensor, int]:
    """The loss, and what was live when the model's body was done: what comes from the output head on is for the loss."""
    head, marks = output_head.of(model), list[int]()

    def mark(*_: Any) -> None:
        marks.append(meter.total)
        meter.kind = Kind.LOSS

    projection = model.get_output_embeddings()  # type: ignore[operator]
    hook = projection.register_forward_pre_hook(mark)
    # The last layer runs whole here, because what all layers keep is reckoned from a few.
    taking: AbstractContextManager[list[Tensor]] = nullcontext([]) if head is None else output_head.hidden_states(head)
    try:
        with taking as taken:
            logits = model(**inputs, logits_to_keep=kept, use_cache=False).logits
    finally:
        hook.remove()
    retained = marks[0] if marks else meter.total
    flat = (logits if head is None else taken.pop()).flatten(0, 1)
    trained = torch.zeros(min(flat.shape[0], max(1, round(batch.tokens * batch.trained))), dtype=torch.int64)
    rows = flat.index_select(0, trained)
    del flat
    return _logits_loss(rows, trained) if head is None else head.loss_sum(rows, trained), retained


def _logits_loss(rows: Tensor, targets: Tensor) -> Tensor:
    """What `losses.language_modeling.cross_entropy_sum` does once it knows which rows are trained, and keeps meanwhile."""
    wide = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
    return (torch.logsumexp(wide, dim=-1) - wide.gather(-1, targets.unsqueeze(-1)).squeeze(-1)).sum()


def _layers(model: nn.Module) -> Sequence[nn.Module]:
    try:
        return list(decoder_layers(model).modules)
    except InputError:
        return ()

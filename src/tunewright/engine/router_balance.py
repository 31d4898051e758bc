"""The auxiliary loss that keeps the experts of a mixture equally busy, added to the loss of any stage.

It is not linear in tokens: how often each expert is chosen is a fact of the whole optimizer step. That is counted first, in a pass without
gradients (and without dropout) over the step's batches on all ranks; with it, the loss is a sum over tokens, so that any split of a step
gives the same gradient: that of transformers' auxiliary loss of the step as one batch. Padding counts for nothing; a prompt that several
answers share counts once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from tunewright.engine.stage_around import StageAround
from tunewright.errors import InputError
from tunewright.kernels.probe import quiet_run
from tunewright.losses.routers import balance_loss, expert_counts, probability_sums
from tunewright.stages.causal_lm import model_inputs
from tunewright.stages.stage import Loss

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tunewright.config.losses import LossConfig
    from tunewright.data.collate import Batch
    from tunewright.stages.stage import Models, StepContext

METRIC = "aux_loss"


@dataclass(frozen=True, slots=True)
class Routers:
    """The model whose routers are watched, how many experts a token chooses, and the weight of the loss."""

    model: nn.Module
    top_k: int
    weight: float

    @contextmanager
    def watched(self) -> Iterator[list[Tensor]]:
        """Inside, a forward pass of the model appends the logits of its routers: [rows of the batch, E] for each layer."""
        taken: list[Tensor] = []

        def ask(_module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            return arguments, {**named, "output_router_logits": True}

        def take(_module: nn.Module, _arguments: Any, output: Any) -> None:
            taken.extend(layer.flatten(0, -2) for layer in output.router_logits)

        hooks = (self.model.register_forward_pre_hook(ask, with_kwargs=True), self.model.register_forward_hook(take))
        try:
            yield taken
        finally:
            for hook in hooks:
                hook.remove()


def routers_of(model: nn.Module, loss: LossConfig) -> Routers | None:
    """The routers to balance: with the weight that the run names, or that of the model's configuration if this says to.

    Raises InputError if the run names one for a model without routers.
    """
    base: Any = model
    while hasattr(base, "get_base_model"):
        base = base.get_base_model()
    settings = base.config.get_text_config()
    own = settings.router_aux_loss_coef if getattr(settings, "output_router_logits", False) else None
    weight = own if loss.moe_aux_loss_coef is None else loss.moe_aux_loss_coef
    if not weight:
        return None
    if getattr(settings, "num_experts_per_tok", None) is None or not hasattr(settings, "output_router_logits"):
        raise InputError(f"moe_aux_loss_coef: a {settings.model_type} has no routers that tell what they decide", mend="remove it")
    return Routers(base, int(settings.num_experts_per_tok), float(weight))


@dataclass(frozen=True, slots=True)
class BalancedStage(StageAround):
    """A stage whose loss is joined by that of the routers in training; evaluations are the stage's own."""

    routers: Routers

    @property
    def measures(self) -> tuple[str, ...]:
        """The stage's own, and the loss of the routers before it is weighted."""
        return (*self.stage.measures, METRIC)

    def updates(self, models: Models, batches: Sequence[Batch], context: StepContext) -> Iterator[Sequence[Batch]]:
        """The stage's own, with what each choice of an expert costs in this update."""
        for update in self.stage.updates(models, batches, context):
            yield self._counted(update, context) if context.training else update

    def loss(self, models: Models, batch: Batch) -> Loss:
        """The stage's own and this batch's part of the weighted loss of the routers, as if it were one of the stage's units."""
        if batch.routing is None:
            return self.stage.loss(models, batch)
        with self.routers.watched() as logits:
            loss = self.stage.loss(models, batch)
        if not any(layer.requires_grad for layer in logits):
            raise InputError("moe_aux_loss_coef: what routers decide gets no gradient here", mend="set use_reentrant_gc: false")
        counts, tokens, units = batch.routing[:-2], float(batch.routing[-2]), float(batch.routing[-1])
        probabilities = torch.stack([probability_sums(_kept(layer, batch)) for layer in logits]).sum(dim=0)
        balance = balance_loss(counts, probabilities, tokens)
        metric = (float(balance.detach()), self.stage.units(batch) / units)
        return Loss(loss.sum + self.routers.weight * units * balance, loss.count, _with(loss.metrics, metric))

    def _counted(self, batches: Sequence[Batch], context: StepContext) -> list[Batch]:
        """The batches with `routing`: choices of each expert over the whole update, decisions, units of the stage."""
        total, decisions, units = torch.zeros(0), 0.0, 0
        for batch in batches:
            with quiet_run(self.routers.model), self.routers.watched() as logits:
                self.routers.model(**model_inputs(batch), logits_to_keep=1, use_cache=False)
            kept = [_kept(layer, batch) for layer in logits]
            counts = torch.stack([expert_counts(layer, self.routers.top_k) for layer in kept]).sum(dim=0)
            total = total + counts if len(total) else counts
            decisions += sum(len(layer) for layer in kept)
            units += self.stage.units(batch)
        summed = torch.tensor(context.ranks.all_reduce_sum([*total.tolist(), decisions, float(units)]), dtype=torch.float64)
        return [replace(batch, routing=summed.to(batch.input_ids.device)) for batch in batches]


def _kept(logits: Tensor, batch: Batch) -> Tensor:
    """Without padding, and without what a rank runs that has no rows left."""
    if not batch.sample_ids:
        return logits[:0]
    return logits if batch.attention_mask is None else logits[batch.attention_mask.flatten().bool()]


def _with(metrics: Mapping[str, tuple[float, float]], metric: tuple[float, float]) -> dict[str, tuple[float, float]]:
    return {**metrics, METRIC: metric}

"""Evaluation: the mean loss and token accuracy of a set, the same for any batch size, layout and number of ranks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tunewright.engine.batches import Examples, Loading, Share, every_batch
from tunewright.engine.metrics import Metrics, exact_mean, speed
from tunewright.engine.number_formats import weights_in
from tunewright.engine.workers import lost_workers_named
from tunewright.errors import InputError, NumericError
from tunewright.stages.stage import StepContext

if TYPE_CHECKING:
    from tunewright.data.collate import Batch
    from tunewright.runtime import Ranks
    from tunewright.stages.stage import Loss, Models, Stage

Part = tuple[float, float]


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """How a set is run through: batch size and rank, loading, device, mixed precision, and the number format to which the weights are
    rounded meanwhile. `accuracy` reports that too."""

    share: Share
    loading: Loading
    device: torch.device
    ranks: Ranks
    accuracy: bool = False
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    dtype: torch.dtype | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """What one pass over a set gave: (sum, count) per batch and quantity, over all ranks; its size and time."""

    parts: Mapping[str, list[Part]]
    samples: int
    steps: int
    runtime_s: float

    def metrics(self, prefix: str) -> Metrics:
        """`<prefix>_loss`, further means, and the run time figures; no mean of what no row has, as of bad answers where all are good."""
        means = {f"{prefix}_{name}": exact_mean(parts) for name, parts in self.parts.items() if any(count for _, count in parts)}
        return means | speed(prefix, self.runtime_s, self.samples, self.steps)


def evaluate(stage: Stage, models: Models, examples: Examples, plan: EvaluationPlan, prefix: str = "eval") -> Metrics:
    """`<prefix>_loss` (sum over the supervised units of all ranks / their count), `<prefix>_accuracy` if the plan asks, run time.

    Logits are reduced batch by batch and never kept. Random numbers and each module's training mode are as before. Raises
    InputError for a set without a supervised unit, NumericError for a loss that is not finite.
    """
    return measure(stage, models, examples, plan).metrics(prefix)


def evaluate_sets(stage: Stage, models: Models, sets: Mapping[str, Examples], plan: EvaluationPlan) -> Metrics:
    """One set: its metrics as `eval_...`. Several: those of each as `eval_<name>_...`, and of all rows together as `eval_...`."""
    measured = {name: measure(stage, models, examples, plan) for name, examples in sets.items()}
    if len(measured) == 1:
        return next(iter(measured.values())).metrics("eval")
    metrics: Metrics = {}
    for name, one in measured.items():
        metrics |= one.metrics(f"eval_{name}")
    return metrics | _together(list(measured.values())).metrics("eval")


def measure(stage: Stage, models: Models, examples: Examples, plan: EvaluationPlan) -> Measured:
    """Run the whole set through `stage.loss` without gradients."""
    started = time.perf_counter()
    mine: dict[str, list[Part]] = {"loss": []}
    steps = 0
    with lost_workers_named(), _undisturbed(models), weights_in(models.values(), plan.dtype), torch.no_grad():
        for batch in _ready(stage, models, (batch.to(plan.device) for batch in every_batch(examples, plan.share, plan.loading)), plan):
            with plan.autocast():
                loss = stage.loss(models, batch)
            _note(mine, loss, plan.accuracy, batch.sample_ids)
            steps += 1
    parts = _over_ranks(mine, plan.ranks)
    if not math.fsum(count for _, count in parts["loss"]):
        raise InputError("the evaluation set has no trained token", mend="see the audit of the data for the rows and reasons")
    return Measured(parts, len(examples), steps, time.perf_counter() - started)


def _ready(stage: Stage, models: Models, batches: Iterator[Batch], plan: EvaluationPlan) -> Iterator[Batch]:
    """The batches with what the loss needs besides data."""
    context = StepContext(plan.ranks, 0, plan.seed, training=False)
    for some in [list(batches)] if stage.rows_interact else ([batch] for batch in batches):
        with plan.autocast():
            updates = list(stage.updates(models, some, context))
        for update in updates:
            yield from update


def _note(parts: dict[str, list[Part]], loss: Loss, accuracy: bool, sample_ids: tuple[int, ...]) -> None:
    """Add one batch. A loss that is not finite stops here, where the rows are known."""
    total = float(loss.sum)
    if not math.isfinite(total):
        raise NumericError(f"the evaluation loss is {total} in samples {', '.join(map(str, sample_ids[:8]))}")
    parts["loss"].append((total, float(loss.count)))
    for name, (value, count) in loss.metrics.items():
        if accuracy or name != "accuracy":
            parts.setdefault(name, []).append((float(value), float(count)))


def _over_ranks(mine: dict[str, list[Part]], ranks: Ranks) -> dict[str, list[Part]]:
    joined: dict[str, list[Part]] = {}
    for part in ranks.gather_objects(mine):
        for name, pairs in part.items():
            joined.setdefault(name, []).extend((total, count) for total, count in pairs)
    return joined


def _together(measured: list[Measured]) -> Measured:
    joined: dict[str, list[Part]] = {}
    for one in measured:
        for name, pairs in one.parts.items():
            joined.setdefault(name, []).extend(pairs)
    return Measured(joined, sum(one.samples for one in measured), sum(one.steps for one in measured),
                    sum(one.runtime_s for one in measured))


@contextmanager
def _undisturbed(models: Models) -> Iterator[None]:
    """Evaluation mode inside; afterwards each module's mode and all random-number generators are what they were."""
    modules = [module for model in models.values() for module in model.modules()]
    modes = [module.training for module in modules]
    with torch.random.fork_rng():
        try:
            for model in models.values():
                model.eval()
            yield
        finally:
            for module, training in zip(modules, modes, strict=True):
                module.training = training

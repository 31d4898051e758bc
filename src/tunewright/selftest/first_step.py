"""The first optimizer step of a run in float64, made by the run's own parts from its configuration: loss, gradients, metrics.

Three things differ from `tunewright train`. Weights are read as float64, and the two kinds of modules that round to float32 inside compute
without that: else nothing could be said beyond seven digits. Weights that start at zero are drawn: else the matrices A of adapters would
have no gradient. The planner is not asked about memory.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from torch import Tensor, nn

from tunewright.engine.hooks import StepHook
from tunewright.runtime import Ranks
from tunewright.selftest.workspace import as_text

if TYPE_CHECKING:
    from tunewright.data.collate import Batch
    from tunewright.engine.health import Suspects
    from tunewright.engine.training import Job, Parts

DRAWN: float = 0.1
"""The deviation of weights that would be zero."""


@dataclass(frozen=True, slots=True)
class Step:
    """Over all ranks: the mean loss of the step; of each of its updates the gradients, as `number of the update: name of the weight`; the
    mean of each metric. The weights that it began with. On this rank: how many batches each update was made of, these batches where they
    were kept, how often a module of the policy ran, and what the run tells of its fast paths."""

    loss: float
    gradients: Mapping[str, Tensor]
    metrics: Mapping[str, float]
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    micro_batches: Sequence[int] = ()
    batches: Sequence[Sequence[Batch]] = ()
    calls: int = 0
    told: Sequence[str] = ()


def first_step(settings: Mapping[str, Any], folder: Path, ranks: Ranks | None = None, *, dtype: torch.dtype = torch.float64) -> Step:
    """The first step of the run that `tunewright train` would make of `settings`, with `folder` as its output directory. Its rows must
    fill one step.

    Among several ranks, each of them calls this inside `runtime.process_group`. Raises as the command does.
    """
    from tunewright.engine.loop import take_step

    folder.mkdir(parents=True, exist_ok=True)
    with _weights_in(dtype):
        job = _job({**settings, "output_dir": folder}, ranks or Ranks())
        policy = job.parts.model
        weights = {name: weight.detach().clone() for name, weight in policy.named_parameters()}
        seen = _Seen(policy)
        for module in policy.modules():
            module.register_forward_hook(seen.count)
        job.session.hooks = (*job.session.hooks, seen)
        try:
            (window,) = job.batches.windows(0, 0)
            result = take_step(job.session.machinery, window, job.session, job.state)
        finally:
            job.session.abandon()
    return Step(result.loss, seen.gradients, {name: total / count for name, (total, count) in result.metrics.items() if count}, weights,
                [len(one) for one in seen.batches], seen.batches, seen.calls, job.parts.kernels.reasons)


def _job(settings: Mapping[str, Any], ranks: Ranks) -> Job:
    """As `tunewright train` puts a run together."""
    from tunewright.commands.preflight import read_ready
    from tunewright.commands.train import _open, _read_rows
    from tunewright.engine.online import with_rollouts
    from tunewright.engine.resume import begin
    from tunewright.engine.roles import open_others
    from tunewright.engine.signals import StopRequest
    from tunewright.engine.training import prepare

    run = read_ready([f"{name}={as_text(value)}" for name, value in settings.items()], "train").config
    rows = _read_rows(run, lambda line: None)
    gc.freeze()  # else the collection before training goes over all that was ever imported, which takes longer than the step
    parts: Parts = _open(run, rows, begin(run, ranks, lambda line: None))
    _draw_zeros(parts.model)
    return prepare(with_rollouts(replace(parts, others=open_others(parts))), StopRequest())


@dataclass(slots=True)
class _Seen(StepHook):
    """Takes down the gradients of every update, and counts."""

    policy: nn.Module
    gradients: dict[str, Tensor] = field(default_factory=dict)
    batches: list[Sequence[Batch]] = field(default_factory=list)
    calls: int = 0

    def count(self, *_: Any) -> None:
        """After a module has run."""
        self.calls += 1

    def inspect(self, suspects: Suspects) -> None:
        """After the backward pass: they are those of all ranks."""
        number = len(self.batches)
        self.gradients |= {f"{number}: {name}": weight.grad.clone() for name, weight in self.policy.named_parameters()
                           if weight.grad is not None}
        self.batches.append(suspects.batches)


def _draw_zeros(policy: nn.Module) -> None:
    """Give trainable weights that are all zero other values, the same on every rank."""
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in policy.parameters():
            if weight.requires_grad and not weight.any():
                weight.normal_(std=DRAWN, generator=chance)


@contextmanager
def _weights_in(dtype: torch.dtype) -> Iterator[None]:
    """Inside, every model is opened with such weights, and nothing in it rounds to float32."""
    from tunewright.models import load

    real = load._open

    def opened(directory: Path, config: Any, attention: str | None, _: torch.dtype, *placement: Any) -> Any:
        model = real(directory, config, attention, dtype, *placement)
        for name, module in list(model.named_modules()):
            if type(module).__name__.endswith("RMSNorm"):
                model.set_submodule(name, RMSNorm(module.weight, module.variance_epsilon))
            elif type(module).__name__.endswith("TopKRouter"):
                module.forward = partial(_route, module)
        return model

    with mock.patch.object(load, "_open", opened):
        yield


class RMSNorm(nn.Module):
    """As models have it (Zhang and Sennrich 2019, eq. 4), in the number format of what comes in."""

    def __init__(self, weight: nn.Parameter, epsilon: float) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = weight, epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., D] -> [..., D]."""
        return self.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


def _route(router: Any, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states [..., D] -> logits [T, E] of the experts, weights [T, K] and numbers [T, K] of those that are chosen."""
    logits = nn.functional.linear(hidden.reshape(-1, router.hidden_dim), router.weight)
    scores, chosen = torch.topk(logits.softmax(dim=-1), router.top_k, dim=-1)
    if router.norm_topk_prob:
        scores = scores / scores.sum(dim=-1, keepdim=True)
    return logits, scores, chosen

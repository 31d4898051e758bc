"""The first pass through compiled layers, before the run begins: what it costs is told, and training meets code that is there.

torch.compile makes code when it first meets an input, and may lay it out for that input's size. The input is therefore the same for
every run, so that a resumed run gets the very code of the run that it resumes.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from tunewright.data.collate import Example
from tunewright.data.records import IGNORE_INDEX
from tunewright.engine.step import Machinery, accumulate
from tunewright.kernels.compilation import compiled_graphs, keep_cache
from tunewright.runtime import Ranks
from tunewright.stages.stage import ExampleKind, Role, StepContext

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunewright.config.run import RunConfig
    from tunewright.data.collate import Batch
    from tunewright.engine.batches import Collate
    from tunewright.stages.stage import Stage

_LENGTHS: Final = (48, 32)
_TOKENS: Final = 100
"""Every vocabulary has as many."""


def compile_first(machinery: Machinery, stage: Stage, collate: Collate, run: RunConfig) -> str:
    """Run forward and backward on a made-up batch of the layout that the run has, as every rank does; returns what it cost. Where a budget
    of tokens divides batches, one of two rows and one of a single row: torch makes code of its own for that.

    Gradients are dropped; random numbers are used, so this comes before the run's seed is set.
    """
    graphs, began = compiled_graphs(), time.monotonic()
    for rows in (run.batching.per_device_train_batch_size,) if run.batching.micro_batch_tokens is None else (2, 1):
        batch = collate([_example(length, stage.examples) for length in _LENGTHS[:rows]])
        accumulate(replace(machinery, stage=stage), _ready(machinery, stage, batch.to(machinery.accelerator.device)), float(sum(_LENGTHS)))
        machinery.optimizer.zero_grad()
    backend = run.kernels.backend
    kept = f"; kept in {keep_cache()}" if backend == "inductor" else ""
    return f"torch_compile: {backend} compiled {compiled_graphs() - graphs} graphs in {time.monotonic() - began:.1f} s{kept}"


def _ready(machinery: Machinery, stage: Stage, batch: Batch) -> Sequence[Batch]:
    """The batch with what the loss needs besides; the policy stands in for its reference, which knows nothing of a made-up row."""
    models = {**machinery.models, Role.REFERENCE: machinery.models[Role.POLICY]}
    with torch.no_grad(), machinery.accelerator.autocast():
        return next(stage.updates(models, [batch], StepContext(Ranks(), 0, 0, training=False)))


def _example(length: int, kind: ExampleKind) -> Example:
    """A row of a length; of a pair, two of them."""
    rows = 2 if kind is ExampleKind.PREFERENCE else 1
    ids = np.arange(length, dtype=np.int32) % _TOKENS
    labels = ids.copy()
    labels[0] = IGNORE_INDEX
    return Example(np.tile(ids, rows), np.tile(labels, rows), length * np.arange(rows + 1, dtype=np.int32), 0, 1)

"""NEFTune (Jain et al. 2023, arXiv 2310.05914): uniform noise on the embeddings of training sequences.

The noise of a sequence is a function of (seed, step, the sequence's tokens): a resumed run draws the same, and so does any split of
the batch over micro-batches, ranks or packs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tunewright.engine.hooks import StepHook
from tunewright.engine.stage_around import StageAround

if TYPE_CHECKING:
    from torch import nn

    from tunewright.data.collate import Batch
    from tunewright.engine.state import TrainState
    from tunewright.stages.stage import Loss, Models


class EmbeddingNoise(StepHook):
    """Adds noise to what the model's input embedding gives, while the model is in training mode."""

    def __init__(self, embedding: nn.Module, alpha: float, seed: int) -> None:
        self._alpha, self._seed, self._step = alpha, seed, 0
        self._batch: Batch | None = None
        embedding.register_forward_hook(self._add)

    def begin(self, state: TrainState) -> None:
        """Go on from the step of `state`."""
        self._step = state.global_step

    def advanced(self, state: TrainState) -> None:
        """Draw anew for the next step."""
        self._step = state.global_step

    @contextmanager
    def over(self, batch: Batch) -> Iterator[None]:
        """The forward pass in the block is of this batch."""
        self._batch = batch
        try:
            yield
        finally:
            self._batch = None

    def _add(self, module: nn.Module, _inputs: Any, embedded: torch.Tensor) -> torch.Tensor | None:
        if self._batch is None or not module.training:
            return None
        noise = torch.zeros_like(embedded)
        ids = self._batch.input_ids.cpu().numpy()
        for row, start, end in sequences(self._batch):
            key = sequence_key(self._seed, self._step, ids[row, start:end])
            noise[row, start:end] = uniform_noise(key, (end - start, embedded.shape[-1]), self._alpha, embedded.device)
        return embedded + noise


def uniform_noise(key: int, shape: tuple[int, int], alpha: float, device: torch.device) -> torch.Tensor:
    """[L, D] float32, uniform between -alpha / sqrt(L D) and +alpha / sqrt(L D)."""
    generator = torch.Generator(device).manual_seed(key)
    drawn = torch.rand(shape, generator=generator, device=device)
    return (2 * drawn - 1) * (alpha / math.sqrt(shape[0] * shape[1]))


def sequence_key(seed: int, step: int, tokens: np.ndarray[Any, Any]) -> int:
    """A seed of 63 bits for one sequence in one step."""
    content = f"{seed} {step} ".encode() + tokens.astype("<i4").tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") >> 1


def sequences(batch: Batch) -> Iterator[tuple[int, int, int]]:
    """(row, start, end) of each sequence of a batch, padding left out."""
    if batch.bounds is not None:
        bounds = batch.bounds.tolist()
        yield from ((0, start, end) for start, end in pairwise(bounds))
    elif batch.attention_mask is not None:
        yield from ((row, 0, length) for row, length in enumerate(batch.attention_mask.sum(dim=1).tolist()))


@dataclass(frozen=True, slots=True)
class NoisyStage(StageAround):
    """A stage whose forward passes the noise knows of."""

    noise: EmbeddingNoise

    def loss(self, models: Models, batch: Batch) -> Loss:
        """The stage's own, with noise on the embeddings in training."""
        with self.noise.over(batch):
            return self.stage.loss(models, batch)

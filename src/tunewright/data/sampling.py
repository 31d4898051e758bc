"""The order of samples as a pure function of (seed, epoch). Nothing here has state, so a resume needs two integers.

Random numbers are the raw output of PCG64, whose stream numpy guarantees for ever; `Generator.permutation` it does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MEGABATCH = 50
"""Batches that are sorted by length together: more means less padding and less random batches."""


def permutation(number: int, key: Sequence[int]) -> NDArray[np.int64]:
    """A permutation of `number` things that depends on `key` only."""
    draws = np.random.PCG64(np.random.SeedSequence(list(key))).random_raw(number)
    return np.argsort(draws, kind="stable").astype(np.int64)


def epoch_order(num_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Order of the samples in `epoch`."""
    return permutation(num_samples, (seed, epoch))


def length_grouped_order(lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A random order in which the rows of each batch are of like length.

    Random rows are taken `MEGABATCH` batches at a time, sorted by length and cut into batches; the batches are then shuffled.
    The batch with the longest row comes first, so that the peak of memory shows in the first step; a short batch comes last,
    so that the others keep their borders.
    """
    order = epoch_order(len(lengths), seed, epoch)
    full = len(order) // batch_size
    if full == 0:
        return order[np.argsort(-lengths[order], kind="stable")]
    cuts = np.arange(MEGABATCH * batch_size, full * batch_size, MEGABATCH * batch_size)
    by_length = np.concatenate([mega[np.argsort(-lengths[mega], kind="stable")] for mega in np.split(order, cuts)])
    batches, short = by_length[: full * batch_size].reshape(full, batch_size), by_length[full * batch_size :]
    shuffled = batches[permutation(full, (seed, epoch, 1))]
    longest = int(np.argmax(lengths[shuffled].max(axis=1)))
    shuffled[[0, longest]] = shuffled[[longest, 0]]
    return np.concatenate([shuffled.reshape(-1), short])


def sortish_order(lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A random order, of which each `MEGABATCH` batches are sorted by length, the longest row first.

    Unlike `length_grouped_order` the batches are not shuffled: within a megabatch they grow shorter from step to step. The longest row of
    all changes places with the first one drawn, so that the peak of memory shows in the first step. Which rows meet in a megabatch
    depends on (seed, epoch) alone.
    """
    order = epoch_order(len(lengths), seed, epoch)
    if len(order) == 0:
        return order
    longest = int(np.argmax(lengths[order]))
    order[[0, longest]] = order[[longest, 0]]
    cuts = np.arange(MEGABATCH * batch_size, len(order), MEGABATCH * batch_size)
    return np.concatenate([mega[np.argsort(-lengths[mega], kind="stable")] for mega in np.split(order, cuts)])


def rank_slice(order: NDArray[np.int64], offset: int, per_device: int, world_size: int, rank: int) -> NDArray[np.int64]:
    """Samples of this rank in the global micro-batch that begins at `offset`; the last one may be short, or empty."""
    taken = order[offset : offset + per_device * world_size]
    return taken[rank * per_device : (rank + 1) * per_device]

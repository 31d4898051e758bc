"""The batches of a run as a function of (epoch, offset): any position can be entered at once, so a resume costs nothing.

`offset` counts the samples of the epoch that all ranks together have consumed. A *window* is what one optimizer step takes:
up to `accumulation` micro-batches, fewer at the end of an epoch; with a budget of tokens as many as its rows make. The *partner* of a
sample is the one that follows it in its window, over all ranks and micro-batches, the first one of the last: a function of the order
alone, so that it is the same for any split of a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info

from tunewright.data.collate import Batch, Example, without_labels
from tunewright.data.collate_feedback import WithPartners
from tunewright.data.micro_batches import Budget, divided
from tunewright.data.sampling import epoch_order, length_grouped_order, rank_slice, sortish_order
from tunewright.engine.workers import WorkerWatch, end_with_rank, watched

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tunewright.data.audit import Note
    from tunewright.data.records import Origin

Collate = Callable[[Sequence[Example]], Batch]


class Examples(Protocol):
    """What the engine reads of a set of examples."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[n] in tokens."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


@runtime_checkable
class Traced(Protocol):
    """A set that knows where its examples came from."""

    def origin(self, index: int) -> Origin:
        """File and line."""
        ...


@dataclass(frozen=True, slots=True)
class Share:
    """This rank's part of each global micro-batch: `per_device` rows of every `per_device * world_size`."""

    per_device: int
    accumulation: int
    rank: int
    world_size: int

    @property
    def rows(self) -> int:
        """Rows of one micro-batch over all ranks."""
        return self.per_device * self.world_size


@dataclass(frozen=True, slots=True)
class Order:
    """The order of samples: a pure function of (seed, epoch). Not shuffled, it is that of the files in every epoch."""

    seed: int
    by_length: bool
    shuffled: bool = True
    sortish: bool = False

    def of(self, epoch: int, lengths: NDArray[np.int64], rows_per_step: int) -> NDArray[np.int64]:
        """Permutation of the samples in this epoch."""
        if not self.shuffled:
            return np.arange(len(lengths))
        if self.by_length:
            return length_grouped_order(lengths, rows_per_step, self.seed, epoch)
        if self.sortish:
            return sortish_order(lengths, rows_per_step, self.seed, epoch)
        return epoch_order(len(lengths), self.seed, epoch)


@dataclass(frozen=True, slots=True)
class Loading:
    """How batches are made: in this process or in `num_workers` others; `timeout_s` bounds the wait for one of those, each of which
    prepares `prefetch` batches ahead (None: torch's own number). `pinned`: in memory that an accelerator copies from directly."""

    collate: Collate
    num_workers: int
    timeout_s: int
    prefetch: int | None = None
    pinned: bool = False


class Streamed(NamedTuple):
    """What a step of a stream says besides: the position after it, the slots that were read for it over all ranks, and of those that
    this rank made, how many held no row to train on, and what is to be told of them with the names of their data sets."""

    offset: int
    within: int
    slots: int
    dropped: int
    notes: tuple[tuple[str, Note], ...]


@dataclass(frozen=True, slots=True)
class Window:
    """The micro-batches of one optimizer step on this rank; `consumed` samples over all ranks, or on this rank of a stream; the epoch's
    last or not."""

    batches: tuple[Batch, ...]
    consumed: int
    ends_epoch: bool
    streamed: Streamed | None = None


class Batches(Protocol):
    """The optimizer steps of a run, from a set in memory or from a stream."""

    @property
    def samples_per_epoch(self) -> int:
        """Samples of one pass; 0 where that is not known."""
        ...

    def windows(self, epoch: int, offset: int, within: int = 0) -> Iterator[Window]:
        """The optimizer steps left in `epoch` after a position."""
        ...


@dataclass(frozen=True, slots=True)
class TrainBatches:
    """The optimizer steps of any epoch, from any offset. `drop_last`: an epoch's last samples are left out where they do not fill
    a step. `budget`: of a micro-batch, which otherwise has `share.per_device` rows; a step and a rank have the same samples either way."""

    examples: Examples
    order: Order
    share: Share
    loading: Loading
    drop_last: bool = False
    budget: Budget | None = None

    @property
    def samples_per_step(self) -> int:
        """Samples of one optimizer step, over all ranks and micro-batches."""
        return self.share.rows * self.share.accumulation

    @property
    def samples_per_epoch(self) -> int:
        """Samples of one pass."""
        total = len(self.examples)
        return total - total % self.samples_per_step if self.drop_last else total

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the samples."""
        return math.ceil(math.ceil(self.samples_per_epoch / self.share.rows) / self.share.accumulation)

    def windows(self, epoch: int, offset: int, within: int = 0) -> Iterator[Window]:
        """The optimizer steps left in `epoch` after `offset` samples; `within` is a stream's."""
        per_window, lengths = self.samples_per_step, self.examples.lengths
        order = self.order.of(epoch, lengths, per_window)[offset:self.samples_per_epoch]
        partners = _partners(order, per_window, len(self.examples))
        steps = [self._step(order[start : start + per_window], partners[start : start + per_window], lengths)
                 for start in range(0, len(order), per_window)]
        loader = iter(_loaded(self.examples, [rows for step in steps for rows in step], self.loading))
        for number, step in enumerate(steps):
            consumed = min(per_window, len(order) - number * per_window)
            yield Window(tuple(next(loader) for _ in step), consumed, number == len(steps) - 1)

    def _step(self, order: NDArray[np.int64], partners: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[_Rows]:
        """The micro-batches of one optimizer step on this rank; on each rank as many."""
        if self.budget is None:
            return _rank_rows(order, partners, self.share)
        parts = divided(lengths[order], self.budget, self.share.per_device, self.share.world_size)[self.share.rank]
        shortest = int(order[np.argmin(lengths[order])])
        return [_Rows(tuple(order[part].tolist()), tuple(partners[part].tolist()), shortest) for part in parts]


def every_batch(examples: Examples, share: Share, loading: Loading) -> Iterator[Batch]:
    """All examples once, in their own order, for evaluation; as many batches on each rank. The partner of the last is the first."""
    order = np.arange(len(examples))
    yield from _loaded(examples, _rank_rows(order, np.roll(order, -1), share), loading)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Sample indices of one micro-batch of this rank, and their partners. With none left for it, `stand_in` runs without labels instead."""

    indices: tuple[int, ...]
    partners: tuple[int, ...]
    stand_in: int


def _partners(order: NDArray[np.int64], per_window: int, number: int) -> NDArray[np.int64]:
    """The partner of each sample of `order`. One that is alone in its window has the next of the `number` samples instead."""
    windows = [order[start : start + per_window] for start in range(0, len(order), per_window)]
    return np.concatenate([order[:0], *((np.roll(one, -1) if len(one) > 1 else (one + 1) % number) for one in windows)])


def _rank_rows(order: NDArray[np.int64], partners: NDArray[np.int64], share: Share) -> list[_Rows]:
    rows = []
    for start in range(0, len(order), share.rows):
        mine, following = (rank_slice(one, start, share.per_device, share.world_size, share.rank).tolist() for one in (order, partners))
        rows.append(_Rows(tuple(mine), tuple(following), int(order[start])))
    return rows


@dataclass(frozen=True, slots=True)
class _Collated(torch.utils.data.Dataset[Batch | Exception]):
    """Micro-batches by number, so that data-loader workers only see plain indices. A worker gives an error as if it were a batch: torch
    would wrap it in another of many lines."""

    examples: Examples
    rows: list[_Rows]
    collate: Collate
    watch: WorkerWatch

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Batch | Exception:
        try:
            return self._batch(self.rows[number])
        except Exception as error:
            told = self.watch.failed(error)
            if get_worker_info() is not None:
                return told
            if told is error:
                raise
            raise told from error

    def _batch(self, rows: _Rows) -> Batch:
        wanted = [*rows.indices, *(rows.partners if isinstance(self.collate, WithPartners) else ())] or [rows.stand_in]
        self.watch.begin(wanted)
        examples = [self._read(index) for index in wanted]
        self.watch.reads(-1)
        batch = self._collated(rows, examples)
        self.watch.done()
        return batch

    def _read(self, index: int) -> Example:
        self.watch.reads(index)
        return self.examples[index]

    def _collated(self, rows: _Rows, examples: list[Example]) -> Batch:
        if not rows.indices:
            return without_labels(self.collate(examples))
        if isinstance(self.collate, WithPartners):
            return self.collate.of(examples[: len(rows.indices)], examples[len(rows.indices) :])
        return self.collate(examples)


def _loaded(examples: Examples, rows: list[_Rows], loading: Loading) -> Iterator[Batch]:
    """The micro-batches in order. The loader has a generator of its own because it draws a seed for its workers from it: from the global
    one the draw would move dropout's random numbers, and a resumed run would differ."""
    watch = WorkerWatch(loading.num_workers, examples.origin if isinstance(examples, Traced) else "sample {}".format)
    return watched(DataLoader(
        _Collated(examples, rows, loading.collate, watch), batch_size=None, shuffle=False, num_workers=loading.num_workers,
        prefetch_factor=loading.prefetch if loading.num_workers else None, pin_memory=loading.pinned,
        timeout=loading.timeout_s if loading.num_workers else 0, generator=torch.Generator(),
        worker_init_fn=partial(_alone, watch)), watch)


def _alone(watch: WorkerWatch, number: int) -> None:
    """In a worker, at its start."""
    end_with_rank()
    watch.start(number)

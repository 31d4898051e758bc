"""The batches of a stream as a function of (epoch, offset, within): any position can be entered without tokenising what lies before.

`offset` counts slots, whatever became of their rows, so that which rows make a micro-batch never depends on what is in them. A rank, and
each of its data-loader workers, reads all raw rows and tokenises its own. Packed, every rank tokenises the slots that are packed together;
`within` then counts the sequences that were taken of those beginning at `offset`.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tunewright.data.collate import Batch, Example, without_labels
from tunewright.data.records import IGNORE_INDEX
from tunewright.data.streaming.stream import Findings, sample_id, together
from tunewright.engine.batches import Loading, Share, Streamed, Window
from tunewright.engine.workers import WorkerWatch, end_with_rank, watched
from tunewright.errors import InputError

if TYPE_CHECKING:
    from tunewright.data.streaming.raw import RawRow
    from tunewright.data.streaming.stream import Stream

_MADE_TOGETHER: Final = 256
"""Rows that are tokenised in one go."""


def _stand_in(rows_each: int) -> Example:
    """What a rank runs, without labels, where none of its slots holds a row to train on; always the same, whatever came before."""
    return Example(np.zeros(2 * rows_each, np.int32), np.array([IGNORE_INDEX, 0] * rows_each, np.int32),
                   np.arange(0, 2 * rows_each + 1, 2, dtype=np.int32), -1)


class _Made(NamedTuple):
    """What one worker made of the slots of one micro-batch - this rank's batch - or of those that are packed together - all sequences."""

    slots: int
    batch: Batch | None
    sequences: list[Example]
    findings: Findings


class _Micro(NamedTuple):
    """A micro-batch of this rank, the position after it, whether it lacks samples, what was found in the slots that were read for it."""

    batch: Batch
    offset: int
    within: int
    is_short: bool
    findings: Findings


@dataclass(frozen=True, slots=True)
class StreamBatches:
    """The optimizer steps of any epoch of a stream, from any position. `drop_last` as in `TrainBatches`."""

    stream: Stream
    share: Share
    loading: Loading
    drop_last: bool = False

    @property
    def samples_per_epoch(self) -> int:
        """0: nobody knows before the end."""
        return 0

    @property
    def steps_per_epoch(self) -> int:
        """0: nobody knows before the end."""
        return 0

    def windows(self, epoch: int, offset: int, within: int = 0) -> Iterator[Window]:
        """The optimizer steps left in `epoch` after a position. Each is held back until it is known whether another follows."""
        micros = self._packed(epoch, offset, within) if self.stream.capacity is not None else self._rows(epoch, offset)
        held: list[_Micro] = []
        while taken := list(islice(micros, self.share.accumulation)):
            if self.drop_last and (len(taken) < self.share.accumulation or taken[-1].is_short):
                break
            if held:
                yield self._window(held, ends_epoch=False)
            held = taken
        if not held:
            raise InputError("the stream holds too few rows for one optimizer step", mend="add rows, or take fewer rows in a step")
        yield self._window(held, ends_epoch=True)

    def _window(self, micros: list[_Micro], *, ends_epoch: bool) -> Window:
        last = micros[-1]
        found = together([one.findings for one in micros])
        return Window(tuple(one.batch for one in micros), sum(len(one.batch.sample_ids) for one in micros), ends_epoch,
                      Streamed(last.offset, last.within, found.slots, found.dropped, found.notes))

    def _rows(self, epoch: int, offset: int) -> Iterator[_Micro]:
        """Micro-batches of consecutive slots."""
        for made in self._made(epoch, offset, self.share.rows):
            offset += made.slots
            yield _Micro(made.batch or self._stand_in(), offset, 0, made.slots < self.share.rows, made.findings)

    def _packed(self, epoch: int, offset: int, within: int) -> Iterator[_Micro]:
        """Micro-batches of consecutive packed sequences; one is held back to carry what is found in slots after the last sequence."""
        waiting: deque[tuple[Example, int, int]] = deque()
        found: list[Findings] = []
        held: _Micro | None = None
        for made in self._made(epoch, offset, self.stream.packed_together):
            after = offset + made.slots
            found += [self._told(made.findings)] if not within else []
            places = [(offset, number) for number in range(1, len(made.sequences))] + [(after, 0)]
            waiting.extend((one, *place) for one, place in islice(zip(made.sequences, places, strict=False), within, None))
            offset, within = after, 0
            while len(waiting) >= self.share.rows:
                if held is not None:
                    yield held
                held, found = self._of_sequences([waiting.popleft() for _ in range(self.share.rows)], found), []
        if waiting:
            if held is not None:
                yield held
            held, found = self._of_sequences(list(waiting), found), []
        if held is None and found:
            held = _Micro(self._stand_in(), offset, 0, True, together([]))
        if held is not None:
            yield held._replace(findings=together([held.findings, *found]))

    def _of_sequences(self, taken: list[tuple[Example, int, int]], found: list[Findings]) -> _Micro:
        """This rank's part of a micro-batch."""
        share = self.share
        mine = [one for one, _, _ in taken[share.rank * share.per_device : (share.rank + 1) * share.per_device]]
        batch = self.loading.collate(mine) if mine else self._stand_in()
        return _Micro(batch.pin_memory() if self.loading.pinned else batch, *taken[-1][1:], len(taken) < share.rows, together(found))

    def _told(self, found: Findings) -> Findings:
        """What all ranks found alike is told by the first."""
        return found._replace(dropped=0, notes=()) if self.share.rank else found

    def _stand_in(self) -> Batch:
        return without_labels(self.loading.collate([_stand_in(self.stream.rows_each)]))

    def _made(self, epoch: int, offset: int, size: int) -> Iterator[_Made]:
        """What is made of the slots from `offset` on, `size` at a time, in order, here or by workers."""
        loading = self.loading
        watch = WorkerWatch(loading.num_workers, self.stream.origin)
        yield from watched(DataLoader(
            _Portions(self.stream, self.share, loading, _Part(epoch, offset, size), watch), batch_size=None,
            num_workers=loading.num_workers, prefetch_factor=loading.prefetch if loading.num_workers else None,
            pin_memory=loading.pinned and self.stream.capacity is None, timeout=loading.timeout_s if loading.num_workers else 0,
            generator=torch.Generator(), worker_init_fn=partial(_alone, watch), collate_fn=_as_it_is), watch)


class _Part(NamedTuple):
    """Slots of `epoch` from `offset` on, `size` at a time."""

    epoch: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class _Portions(IterableDataset[_Made]):
    """The portions of a part of the stream; of several workers each makes every so-manieth, so that torch finds them in order.

    A worker gives an error as if it were a portion: torch would wrap it in another of many lines.
    """

    stream: Stream
    share: Share
    loading: Loading
    part: _Part
    watch: WorkerWatch

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        number, of = (0, 1) if worker is None else (worker.id, worker.num_workers)
        portions = islice(self.stream.order.portions(*self.part), number, None, of)
        try:
            yield from map(self._packed, portions) if self.stream.capacity is not None else self._rows(portions)
        except Exception as error:
            told = self.watch.failed(error)
            if worker is not None:
                yield told
            elif told is error:
                raise
            else:
                raise told from error

    def _packed(self, raws: list[RawRow]) -> _Made:
        self.watch.begin([sample_id(raw) for raw in raws])
        made = _Made(len(raws), None, *self.stream.packed(raws))
        self.watch.done()
        return made

    def _rows(self, portions: Iterator[list[RawRow]]) -> Iterator[_Made]:
        """This rank's part of each micro-batch; the rows of several are tokenised in one go."""
        per_device, rank = self.share.per_device, self.share.rank
        while several := list(islice(portions, max(1, _MADE_TOGETHER // per_device))):
            mine = [raws[rank * per_device : (rank + 1) * per_device] for raws in several]
            self.watch.begin([sample_id(raw) for raws in mine for raw in raws])
            examples, findings = self.stream.examples([raw for raws in mine for raw in raws])
            begin, made = 0, []
            for raws, own in zip(several, mine, strict=True):
                end = begin + len(own)
                rows = [one for of_slot in examples[begin:end] for one in of_slot]
                batch = self.loading.collate(rows) if rows else None
                made.append(_Made(len(raws), batch, [], together(findings[begin:end])._replace(slots=len(raws))))
                begin = end
            self.watch.done()
            yield from made


def _as_it_is(made: Any) -> Any:
    """In place of torch's own function, which would make tensors of the arrays of sequences."""
    return made


def _alone(watch: WorkerWatch, number: int) -> None:
    """In a worker, at its start: there is one thread for it."""
    end_with_rank()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    watch.start(number)

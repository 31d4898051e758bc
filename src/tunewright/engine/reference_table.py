"""The reference's log-probabilities of every answer of a run, computed once before training and kept as a file.

They are asked for in batches of their own that depend neither on ranks nor on micro-batches, so any run finds the same bits; a resumed
run reads them back from its output directory. An entry is found by the content of its sequence, the file by what the reference is made of.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tunewright.durable import storage_errors, sync_directory, sync_file
from tunewright.engine import assemble
from tunewright.engine.batches import Collate, Loading, Share, TrainBatches, every_batch
from tunewright.runtime import Ranks
from tunewright.stages.reference import RememberedReference, quiet_logps, sequence_keys
from tunewright.stages.stage import ExampleKind

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import nn

    from tunewright.config.run import RunConfig
    from tunewright.data.collate import Batch
    from tunewright.engine.batches import Examples

FILE_NAME: Final = "reference_logps.safetensors"
"""keys [n, 16] uint8: `stages.reference.sequence_keys`. logps [n]: in nats. Its metadata says of which reference, and of which rows."""

ROWS: Final = 8
"""Examples of a set that go through the reference together."""

Logps = dict[str, float]


class Asked(NamedTuple):
    """A reference that can be asked: the model on its device, how rows are laid out for it, and the mixed precision of the run."""

    model: nn.Module
    collate: Collate
    autocast: Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Rows:
    """What the run will ask about: the examples it trains on and evaluates, and for how many steps. All of them are known."""

    run: RunConfig
    kind: ExampleKind
    train: Examples | None
    evaluation: Mapping[str, Examples]
    digest: str

    def batches(self, collate: Collate) -> Iterator[Batch]:
        """Every sequence of the run at least once, in an order and in batches that do not depend on how the run is split."""
        loading = Loading(collate, 0, 0)
        if self.train is not None:
            yield from self._training(self.train, loading)
        for examples in self.evaluation.values():
            yield from every_batch(examples, Share(ROWS, 1, 0, 1), loading)

    def _training(self, train: Examples, loading: Loading) -> Iterator[Batch]:
        """Pairs are the same in every epoch. What a row of feedback is mismatched with follows from the order of its epoch."""
        steps = assemble.training_batches(self.run, train, loading.collate, Ranks())
        assert isinstance(steps, TrainBatches), "the rows of a stream are not known beforehand"
        if self.kind is ExampleKind.PREFERENCE and self._steps(steps) >= steps.steps_per_epoch:
            yield from every_batch(train, Share(ROWS, 1, 0, 1), loading)
            return
        together = math.gcd(ROWS, steps.samples_per_step)
        split = TrainBatches(train, steps.order, Share(together, steps.samples_per_step // together, 0, 1), loading, steps.drop_last)
        epochs = math.ceil(self._steps(steps) / steps.steps_per_epoch)
        left = self._steps(steps)
        for epoch in range(1 if self.kind is ExampleKind.PREFERENCE else epochs):
            for window in split.windows(epoch, 0):
                if left == 0:
                    return
                left -= 1
                yield from window.batches

    def _steps(self, batches: TrainBatches) -> int:
        return assemble.timetable(self.run, batches.steps_per_epoch).total_steps


@dataclass(frozen=True, slots=True)
class Table:
    """Where the answers are kept: in the output directory, and for other runs in `cache`. `reference`: what it is made of."""

    root: Path
    cache: Path | None
    reference: str
    rows: str

    def read(self) -> Kept | None:
        """What an earlier run kept of the same reference; None if there is nothing, or it is of another one or damaged."""
        for path in (self.root / FILE_NAME, *self._cached()):
            found = _read(path, self.reference)
            if found is not None:
                return found
        return None

    def write(self, kept: Kept) -> None:
        """Keep the answers. Raises StorageError if the output directory cannot take them; a cache that cannot is passed over."""
        with storage_errors(self.root, 64 * len(kept.logps)):
            _write(self.root / FILE_NAME, kept, self.reference)
        for path in self._cached():
            with contextlib.suppress(OSError, SafetensorError):
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(path, kept, self.reference)

    def _cached(self) -> tuple[Path, ...]:
        return () if self.cache is None else (self.cache / f"reference-{self.reference[:16]}-{self.rows[:16]}.safetensors",)


class Kept(NamedTuple):
    """Log-probabilities by key, their number format, and the digest of the rows that they are all of."""

    logps: Logps
    dtype: torch.dtype
    rows: str


def remember(table: Table, rows: Rows, opened: Callable[[], Asked], collate: Collate, ranks: Ranks,
             say: Callable[[str], None]) -> RememberedReference:
    """All answers: kept ones, and what they lack computed by the reference, which is opened for that alone. Ranks share the work.

    `collate` lays rows out where only their keys are wanted. Every rank calls this together.
    """
    kept = _agreed(table.read() if ranks.is_main else None, ranks)
    if kept is not None and kept.rows == rows.digest:
        say(f"reference: {len(kept.logps)} log-probabilities read from {table.root / FILE_NAME}")
        return RememberedReference(kept.logps, kept.dtype)
    logps = {} if kept is None else kept.logps
    dtype = None if kept is None else kept.dtype
    if any(key not in logps for batch in rows.batches(collate) for key in sequence_keys(batch)):
        began, known = time.monotonic(), len(logps)
        found, dtype = _ask(opened(), rows, logps, ranks)
        logps = logps | found
        say(f"reference: {len(logps) - known} log-probabilities computed in {time.monotonic() - began:.1f} s")
    assert dtype is not None, "a run has rows"
    if ranks.is_main:
        table.write(Kept(logps, dtype, rows.digest))
    ranks.barrier()
    return RememberedReference(logps, dtype)


def _ask(asked: Asked, rows: Rows, known: Logps, ranks: Ranks) -> tuple[Logps, torch.dtype]:
    """What is not known, over all ranks, each of which takes every `world_size`-th of the batches that are asked about."""
    mine: Logps = {}
    seen, number, dtype = set(known), 0, torch.float32
    device = next(asked.model.parameters()).device
    for batch in rows.batches(asked.collate):
        keys = sequence_keys(batch)
        if seen.issuperset(keys):
            continue
        if number % ranks.world_size == ranks.rank:
            with asked.autocast():
                values = quiet_logps(asked.model, batch.to(device))
            dtype = values.dtype
            mine |= {key: value for key, value in zip(keys, values.tolist(), strict=True) if key not in seen}
        seen.update(keys)
        number += 1
    parts = ranks.gather_objects([mine, str(dtype)])
    return {key: value for part, _ in parts for key, value in part.items()}, _dtype(max(name for _, name in parts))


def _agreed(kept: Kept | None, ranks: Ranks) -> Kept | None:
    """What the first rank read, on all of them."""
    if ranks.world_size == 1:
        return kept
    told = ranks.gather_objects(None if kept is None else [kept.logps, str(kept.dtype), kept.rows])[0]
    return None if told is None else Kept(told[0], _dtype(told[1]), told[2])


def _dtype(name: str) -> torch.dtype:
    return torch.float64 if name == "torch.float64" else torch.float32


def _read(path: Path, reference: str) -> Kept | None:
    try:
        with safe_open(path, "np") as file:
            said: dict[str, str] = file.metadata() or {}
            which, _, rows = said.get("of", "").partition(" ")
            if which != reference:
                return None
            keys, logps = file.get_tensor("keys"), file.get_tensor("logps")
    except (OSError, SafetensorError):
        return None
    names = [key.tobytes().hex() for key in keys]
    return Kept(dict(zip(names, logps.tolist(), strict=True)), _dtype(f"torch.{logps.dtype}"), rows)


def _write(path: Path, kept: Kept, reference: str) -> None:
    """The whole file or none."""
    names = sorted(kept.logps)
    keys = np.frombuffer(bytes.fromhex("".join(names)), np.uint8).reshape(len(names), 16)
    logps = np.array([kept.logps[name] for name in names], np.float64 if kept.dtype == torch.float64 else np.float32)
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    save_file({"keys": keys, "logps": logps}, staging, {"of": f"{reference} {kept.rows}"})
    sync_file(staging)
    os.replace(staging, path)
    sync_directory(path.parent)

"""What can be known of a run's data in two seconds, before a model is opened. Standard library only.

Files up to `WHOLE_BYTES` in all are read to the end; of larger ones the first rows, and the last bytes of an array.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from tunewright.config.data import named_sets
from tunewright.config.run import RunConfig
from tunewright.data.audit import Note, SetAudit
from tunewright.data.files import DataFile, read_head, read_rows
from tunewright.data.formats.convert import convert
from tunewright.data.formats.fields import Refusal
from tunewright.data.json_rows import Row
from tunewright.data.quirks import chosen
from tunewright.data.sources import Settled, Source, first_rows, locate, named, outcomes, settle
from tunewright.errors import InputError, Problem, StorageError

WHOLE_BYTES: Final = 20_000_000
_HEAD_BYTES: Final = 1 << 20
_HEAD_ROWS: Final = 1000
_ARROW_KINDS: Final = ("parquet", "arrow")


def probe(run: RunConfig) -> list[Problem]:
    """The first problem of each data set: missing or broken files, registry errors, missing columns, wrong types, no answers; and a
    val_size that leaves nothing to train on."""
    data = run.data
    if data.data_manager_type == "mg":
        from tunewright.data.megatron.probe import probe as probe_megatron

        return probe_megatron(run)
    problems: list[Problem] = []
    budget = _Budget(WHOLE_BYTES)
    usable: list[int | None] = []
    for key, specs in (("dataset", data.dataset), ("eval_dataset", data.eval_dataset)):
        for _, spec in named_sets(specs):
            try:
                counted = _probe_set(spec, key, run, budget)
                usable += [counted] if key == "dataset" else []
            except (InputError, StorageError) as error:
                problems.append(Problem(error.message, error.where, error.mend, rule="data"))
    return problems or _held_out_whole(data.val_size, usable)


def interpretations(run: RunConfig) -> list[str]:
    """How the rows of each data set are understood, in the words of a run; of sets that a look does not open, that they are not."""
    data, lines = run.data, []
    if data.data_manager_type == "mg":
        return []
    for key, specs in (("dataset", data.dataset), ("eval_dataset", data.eval_dataset)):
        for _, spec in named_sets(specs):
            source = locate(spec, data.dataset_dir, key=key, quirks=chosen(data.data_compat))
            if source.place is not None or source.files[0].kind in _ARROW_KINDS:
                lines.append(f"{source.name}: how rows are understood is told when they are read")
            else:
                lines.append(settle(named(source, data.columns()), run.run.stage).line)
    return lines


def _held_out_whole(val_size: float, usable: list[int | None]) -> list[Problem]:
    """What `split_rows` would refuse, where the rows of all sets were counted."""
    counts = [count for count in usable if count is not None]
    total = sum(counts)
    if not val_size or not counts or len(counts) < len(usable):
        return []
    held_out = math.ceil(total * val_size) if val_size < 1 else int(val_size)
    return [] if held_out < total else [Problem(
        f"val_size: {val_size:g} holds out {held_out} of {total} rows and leaves none to train on", mend="make it smaller", rule="data")]


class _Budget:
    """Bytes that may still be read whole."""

    def __init__(self, size: int) -> None:
        self._left = size

    def allows(self, source: Source) -> bool:
        """Whether all files of the source fit; if so their size is spent."""
        size = sum(file.path.stat().st_size for file in source.files)
        if size > self._left:
            return False
        self._left -= size
        return True


def _probe_set(spec: str | Mapping[str, Any], key: str, run: RunConfig, budget: _Budget) -> int | None:
    """The number of usable rows, or None if not all were read. Raises InputError or StorageError for what is wrong."""
    source = locate(spec, run.data.dataset_dir, key=key, quirks=chosen(run.data.data_compat))
    if source.place is not None:  # nothing is fetched for a look
        return None
    if source.files[0].kind in _ARROW_KINDS:
        for file in source.files:
            next(read_head(file, _HEAD_BYTES), None)
        return None
    whole = budget.allows(source)
    settled = settle(named(source, run.data.columns()), run.run.stage)
    if whole:
        return _check_all(settled, run)
    for file in source.files:
        _check_head(file, settled)
    return None


def _check_all(settled: Settled, run: RunConfig) -> int | None:
    """Convert every row that the run would use, and judge how many are left out; the number left, None if rows are drawn."""
    limit = run.data.max_samples if settled.source.num_samples is None else None
    found = list(islice(outcomes(settled), limit))
    notes = [Note(origin, "dropped", outcome.reason, outcome.detail) for origin, outcome in found
             if isinstance(outcome, Refusal)]
    SetAudit(settled.source.name, len(found), tuple(notes)).check(run.data.max_dropped_fraction)
    return len(found) - len(notes) if settled.source.num_samples is None else None


def _check_head(file: DataFile, settled: Settled) -> None:
    for row in islice(_head(file), _HEAD_ROWS):
        convert(row, settled.layout)


def _head(file: DataFile) -> Iterator[Row]:
    return first_rows(file, _HEAD_BYTES) if file.path.stat().st_size > _HEAD_BYTES else read_rows(file)

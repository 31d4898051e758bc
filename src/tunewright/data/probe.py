"""What can be known of a run's data in two seconds, before a model is opened. Standard library only.

Files up to `WHOLE_BYTES` in all are read to the end; of larger ones the first rows, and the last bytes of an array.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

from tunewright.config.run import RunConfig
from tunewright.data.audit import Note, SetAudit
from tunewright.data.files import DataFile, read_head, read_rows
from tunewright.data.formats.convert import convert
from tunewright.data.formats.fields import Refusal
from tunewright.data.json_rows import Row
from tunewright.data.sources import Settled, Source, first_rows, locate, outcomes, settle
from tunewright.errors import InputError, Problem, StorageError

WHOLE_BYTES: Final = 20_000_000
_HEAD_BYTES: Final = 1 << 20
_HEAD_ROWS: Final = 1000
_ARROW_KINDS: Final = ("parquet", "arrow")


def probe(run: RunConfig) -> list[Problem]:
    """The first problem of each data set: missing or broken files, registry errors, missing columns, wrong types, no answers."""
    data = run.data
    problems = []
    if data.val_size and data.eval_dataset:
        problems.append(Problem("val_size and eval_dataset are both given", mend="keep one of them", rule="data"))
    budget = _Budget(WHOLE_BYTES)
    for key, specs in (("dataset", data.dataset), ("eval_dataset", data.eval_dataset)):
        for spec in specs:
            problems += _probe_set(spec, key, run, budget)
    return problems


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


def _probe_set(spec: str | Mapping[str, Any], key: str, run: RunConfig, budget: _Budget) -> list[Problem]:
    try:
        source = locate(spec, Path(run.data.dataset_dir), key=key)
        if source.files[0].kind in _ARROW_KINDS:
            for file in source.files:
                next(read_head(file, _HEAD_BYTES), None)
        elif budget.allows(source):
            _check_all(settle(source, run.run.stage), run)
        else:
            settled = settle(source, run.run.stage)
            for file in source.files:
                _check_head(file, settled)
    except (InputError, StorageError) as error:
        return [Problem(error.message, error.where, error.mend, rule="data")]
    return []


def _check_all(settled: Settled, run: RunConfig) -> None:
    """Convert every row that the run would use, and judge how many are left out."""
    limit = run.data.max_samples if settled.source.num_samples is None else None
    found = list(islice(outcomes(settled), limit))
    notes = [Note(origin, "dropped", outcome.reason, outcome.detail) for origin, outcome in found
             if isinstance(outcome, Refusal)]
    SetAudit(settled.source.name, len(found), tuple(notes)).check(run.data.max_dropped_fraction)


def _check_head(file: DataFile, settled: Settled) -> None:
    for row in islice(_head(file), _HEAD_ROWS):
        convert(row, settled.layout)


def _head(file: DataFile) -> Iterator[Row]:
    return first_rows(file, _HEAD_BYTES) if file.path.stat().st_size > _HEAD_BYTES else read_rows(file)

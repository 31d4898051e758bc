"""Records to numbers of tokens, as a run would make them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tunewright.data.audit import Note
from tunewright.data.encoding import RowEncoder
from tunewright.data.records import Origin, Record
from tunewright.errors import InputError


class Measure(NamedTuple):
    """One record: its tokens before anything is cut, its trained tokens after that - of a pair in its longer row and its longer answer -
    what was done, and what cannot be rendered."""

    origin: Origin
    tokens: int
    trained: int
    notes: tuple[Note, ...]
    error: InputError | None = None


@dataclass(frozen=True, slots=True)
class Measurer:
    """Encodes chunks of records and keeps only numbers. Pure, so that it can run in any process."""

    encoder: RowEncoder

    def __call__(self, records: Sequence[Record]) -> list[Measure]:
        """Each record in order. A record that cannot be rendered is found by encoding its chunk one by one."""
        try:
            rows = self.encoder(records)
        except InputError as error:
            if len(records) == 1:
                return [Measure(records[0].origin, 0, 0, (), error)]
            return [measure for record in records for measure in self([record])]
        return [Measure(row.origin, row.size, row.trained, row.notes) for row in rows]

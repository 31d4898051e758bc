"""Records to numbers of tokens, as a run would make them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from tunewright.data.audit import Note
from tunewright.data.encoding import Encoder
from tunewright.data.records import IGNORE_INDEX, Origin, Record
from tunewright.errors import InputError


class Measure(NamedTuple):
    """One record: its tokens before anything is cut, its trained tokens after that, what was done, and what cannot be rendered."""

    origin: Origin
    tokens: int
    trained: int
    notes: tuple[Note, ...]
    error: InputError | None = None


@dataclass(frozen=True, slots=True)
class Measurer:
    """Encodes chunks of records and keeps only numbers. Pure, so that it can run in any process."""

    encoder: Encoder

    def __call__(self, records: Sequence[Record]) -> list[Measure]:
        """Each record in order. A record that cannot be rendered is found by encoding its chunk one by one."""
        try:
            encoded = self.encoder.encode(records)
        except InputError as error:
            if len(records) == 1:
                return [Measure(records[0].origin, 0, 0, (), error)]
            return [measure for record in records for measure in self([record])]
        rows = replace(self.encoder, encode=lambda _: encoded)(records)
        return [Measure(row.origin, len(ids), sum(int(np.count_nonzero(piece.labels != IGNORE_INDEX)) for piece in row.pieces), row.notes)
                for row, (ids, _) in zip(rows, encoded, strict=True)]

"""Raw rows to tokens: parsed, converted, encoded; each with what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tunewright.data.audit import Note
from tunewright.data.encoding import RowEncoder
from tunewright.data.examples import Tokens
from tunewright.data.files import DataFile
from tunewright.data.formats.convert import convert
from tunewright.data.formats.fields import Refusal
from tunewright.data.formats.layout import Layout
from tunewright.data.records import Origin, Record
from tunewright.data.streaming.raw import RawRow, parsed
from tunewright.errors import InputError


class Made(NamedTuple):
    """What a row became: its training rows (none if it is dropped), where it stands, and what was done."""

    pieces: tuple[Tokens, ...]
    origin: Origin
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class StreamedFile:
    """A file of a stream, the name of its data set, and how its rows are understood."""

    file: DataFile
    set_name: str
    layout: Layout


@dataclass(frozen=True, slots=True)
class RowMaker:
    """Turns raw rows of `files` into tokens. `vocab_size` is that of the model, None if it is not known."""

    files: tuple[StreamedFile, ...]
    encoder: RowEncoder
    vocab_size: int | None

    def __call__(self, rows: Sequence[RawRow]) -> list[Made]:
        """Each row, in order; pure, so that it may run in any process. Raises `InputError` for a row that cannot be read."""
        made: list[Made | None] = [None] * len(rows)
        records: dict[type[Record], list[tuple[int, Record, tuple[Note, ...]]]] = {}
        for place, raw in enumerate(rows):
            file = self.files[raw.file]
            row = parsed(raw, file.file)
            outcome = convert(row, file.layout)
            if isinstance(outcome, Refusal):
                made[place] = Made((), row.origin, (Note(row.origin, "dropped", outcome.reason, outcome.detail),))
            else:
                changes = tuple(Note(row.origin, "changed", change) for change in outcome.changes)
                records.setdefault(type(outcome.record), []).append((place, outcome.record, changes))
        for found in records.values():
            encoded = self.encoder([record for _, record, _ in found])
            for (place, _, changes), one in zip(found, encoded, strict=True):
                self._check(one.pieces, one.origin)
                made[place] = Made(one.pieces, one.origin, (*changes, *one.notes))
        return [one for one in made if one is not None]

    def _check(self, pieces: Sequence[Tokens], origin: Origin) -> None:
        if self.vocab_size is None:
            return
        for piece in pieces:
            largest = int(np.max(piece.input_ids, initial=0))
            if largest >= self.vocab_size:
                raise InputError(f"token id {largest} is none of the vocabulary, which has {self.vocab_size}", where=str(origin),
                                 mend="use the tokenizer that belongs to the model")

"""Records to training rows: encoded, brought to cutoff_len, and left out if nothing of them is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tunewright.data.audit import Note
from tunewright.data.examples import Tokens
from tunewright.data.formats.turns import NO_TRAINED_TOKEN
from tunewright.data.records import IGNORE_INDEX, Origin, Record
from tunewright.data.tokenize import truncate

Encode = Callable[[Sequence[Record]], Sequence[tuple[Sequence[int], Sequence[int]]]]
"""Records -> (ids, labels) of each, at full length."""


class Encoded(NamedTuple):
    """The training rows of one record - several pieces of a long document, none if it is dropped - and what was done."""

    origin: Origin
    pieces: tuple[Tokens, ...]
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class Encoder:
    """Encodes a chunk of records. `split_documents` cuts a long text into pieces instead of cutting it off."""

    encode: Encode
    cutoff_len: int
    cutoff_policy: str
    split_documents: bool

    def __call__(self, records: Sequence[Record]) -> list[Encoded]:
        """Each record in order; pure, so that it can run in any process."""
        encoded = self.encode(records)
        return [self._row(record.origin, ids, labels) for record, (ids, labels) in zip(records, encoded, strict=True)]

    def _row(self, origin: Origin, ids: Sequence[int], labels: Sequence[int]) -> Encoded:
        long = len(ids) > self.cutoff_len
        if not long:
            return self._checked(origin, (_tokens(ids, labels),), ())
        size = f"{len(ids)} tokens"
        if self.split_documents:
            starts = range(0, len(ids), self.cutoff_len)
            pieces = tuple(_tokens(ids[at : at + self.cutoff_len], labels[at : at + self.cutoff_len]) for at in starts)
            reason = f"longer than cutoff_len {self.cutoff_len}: split"
            return self._checked(origin, pieces, (Note(origin, "changed", reason, f"{size} in {len(pieces)} pieces"),))
        kept = truncate(ids, labels, self.cutoff_len, self.cutoff_policy)
        if kept is None:
            return Encoded(origin, (), (Note(origin, "dropped", f"longer than cutoff_len {self.cutoff_len}", size),))
        reason = f"longer than cutoff_len {self.cutoff_len}: {_CUTS[self.cutoff_policy]}"
        return self._checked(origin, (_tokens(*kept),), (Note(origin, "changed", reason, size),))

    def _checked(self, origin: Origin, pieces: tuple[Tokens, ...], notes: tuple[Note, ...]) -> Encoded:
        """Leave out pieces without a label to train, and the row if none is left."""
        trained = tuple(piece for piece in pieces if (piece.labels != IGNORE_INDEX).any())
        if trained:
            return Encoded(origin, trained, notes)
        detail = f"{notes[0].detail}, {notes[0].reason}" if notes else f"{len(pieces[0].labels)} tokens"
        return Encoded(origin, (), (Note(origin, "dropped", NO_TRAINED_TOKEN, detail),))


_CUTS = {"cut_right": "cut at its end", "cut_left": "cut at its start"}


def _tokens(ids: Sequence[int], labels: Sequence[int]) -> Tokens:
    """Arrays of one row. Its first token cannot be predicted from anything, so its label is taken out."""
    targets = np.array(labels, np.int32)
    targets[:1] = IGNORE_INDEX
    return Tokens(np.array(ids, np.int32), targets)

"""Records to training rows: encoded, brought to cutoff_len, and left out if nothing of them is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol

import numpy as np

from tunewright.data.audit import SPLIT, Note
from tunewright.data.examples import Tokens
from tunewright.data.formats.turns import NO_TRAINED_TOKEN
from tunewright.data.long_rows import Encode, Ints, LongRows, Row
from tunewright.data.records import IGNORE_INDEX, Origin, Record
from tunewright.data.tokenize import truncate


class Encoded(NamedTuple):
    """The training rows of one record - several pieces of a long document, two of a pair of answers, none if it is dropped - and what was
    done. `size`: tokens before anything was cut, of a pair in its longer row. `are_answers`: several rows are not parts of one, but answers
    to one prompt."""

    origin: Origin
    pieces: tuple[Tokens, ...]
    notes: tuple[Note, ...]
    size: int
    are_answers: bool = False

    @property
    def trained(self) -> int:
        """Trained tokens: of all parts of a row, or of the answer that has the most."""
        counts = [int(np.count_nonzero(piece.labels != IGNORE_INDEX)) for piece in self.pieces]
        return max(counts, default=0) if self.are_answers else sum(counts)


class RowEncoder(Protocol):
    """Turns a chunk of records into training rows."""

    @property
    def splits(self) -> bool:
        """Whether one record may become several examples."""
        ...

    def __call__(self, records: Sequence[Record]) -> list[Encoded]:
        """Each record in order; pure, so that it can run in any process."""
        ...


@dataclass(frozen=True, slots=True)
class Encoder:
    """Encodes a chunk of records. `split_documents` cuts a long text into pieces instead of cutting it off; `conversations` is None in
    pre-training, which has none."""

    encode: Encode
    cutoff_len: int
    cutoff_policy: str
    split_documents: bool
    conversations: LongRows | None = None

    @property
    def splits(self) -> bool:
        """Whether one record may become several rows."""
        return self.split_documents or self.cutoff_policy == "split"

    def __call__(self, records: Sequence[Record]) -> list[Encoded]:
        """Each record in order; pure, so that it can run in any process."""
        return [self._long(record, row) if len(row[0]) > self.cutoff_len else self._checked(record.origin, [row], None, len(row[0]))
                for record, row in zip(records, self.encode(records), strict=True)]

    def _long(self, record: Record, row: Row) -> Encoded:
        """A record with more tokens than a row may have."""
        size = len(row[0])
        reason = f"longer than cutoff_len {self.cutoff_len}"
        if self.cutoff_policy == "drop":
            return Encoded(record.origin, (), (Note(record.origin, "dropped", reason, tokens_of(size), size),), size)
        if not self.splits:
            return self._checked(record.origin, [self._cut(record, row)],
                                 Note(record.origin, "changed", f"{reason}: {CUTS[self.cutoff_policy]}", tokens_of(size), size), size)
        parts = self._parts(record, row)
        long = sum(len(ids) > self.cutoff_len for _, (ids, _) in parts)
        said = f"{tokens_of(size)} in {len(parts)} pieces" + (f", {long} of them cut in proportion" if long else "")
        pieces = [self._fitted(part, piece) for part, piece in parts]
        return self._checked(record.origin, pieces, Note(record.origin, "changed", f"{reason}: {SPLIT}", said,
                                                         sum(len(ids) for _, (ids, _) in parts)), size)

    def _parts(self, record: Record, row: Row) -> list[tuple[Record, Row]]:
        if self.conversations is not None:
            return self.conversations.pieces(record, row, self.cutoff_len)
        ids, labels = row
        return [(record, (ids[at : at + self.cutoff_len], labels[at : at + self.cutoff_len])) for at in range(0, len(ids), self.cutoff_len)]

    def _fitted(self, part: Record, piece: Row) -> Row:
        if len(piece[0]) <= self.cutoff_len or self.conversations is None:
            return piece
        return self.conversations.in_proportion(part, piece, self.cutoff_len)

    def _cut(self, record: Record, row: Row) -> Row:
        """The row brought to size by the policy. A document has no questions: its end is cut where the policy is `proportional`."""
        if self.cutoff_policy == "proportional" and self.conversations is not None:
            return self.conversations.in_proportion(record, row, self.cutoff_len)
        return truncate(*row, self.cutoff_len, "cut_left" if self.cutoff_policy == "cut_left" else "cut_right") or row

    def _checked(self, origin: Origin, rows: Sequence[Row], note: Note | None, size: int) -> Encoded:
        """Leave out rows without a label to train, and the record if none is left. `note` has the tokens before: those lost are counted."""
        pieces = [as_tokens(*row) for row in rows]
        trained = tuple(piece for piece in pieces if (piece.labels != IGNORE_INDEX).any())
        if trained and note is None:
            return Encoded(origin, trained, (), size)
        if trained and note is not None:
            lost = (note.tokens_lost or 0) - sum(len(piece.labels) for piece in trained)
            empty = len(pieces) - len(trained)
            detail = note.detail + (f", {empty} of them without a trained token left out" if empty else "")
            return Encoded(origin, trained, (replace(note, detail=detail, tokens_lost=lost),), size)
        if note is None:
            return Encoded(origin, (), (Note(origin, "dropped", NO_TRAINED_TOKEN, tokens_of(len(pieces[0].labels))),), size)
        return Encoded(origin, (), (Note(origin, "dropped", NO_TRAINED_TOKEN, f"{note.detail}, {note.reason}", note.tokens_lost),), size)


CUTS: Final = {"cut_right": "cut at its end", "cut_left": "cut at its start", "proportional": "cut in proportion"}
"""What is done to a row that is too long, in the words of the audit."""


def tokens_of(size: int) -> str:
    """In words."""
    return f"{size} tokens"


def as_tokens(ids: Ints, labels: Ints) -> Tokens:
    """Arrays of one row. Its first token cannot be predicted from anything, so its label is taken out."""
    if isinstance(ids, np.ndarray) and isinstance(labels, np.ndarray) and labels[0] == IGNORE_INDEX:
        return Tokens(ids, labels)
    targets = np.array(labels, np.int32)
    targets[:1] = IGNORE_INDEX
    return Tokens(np.array(ids, np.int32), targets)

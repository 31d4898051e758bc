"""A training set that is never whole in memory: order, rows, packing, and what names a row."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from tunewright.data.audit import Note
from tunewright.data.collate import Example
from tunewright.data.examples import ExampleSet, StoreBuilder, Tokens
from tunewright.data.fingerprint import layout_facts
from tunewright.data.packing import pack
from tunewright.data.records import Origin
from tunewright.data.streaming.raw import RawRow, raw_rows
from tunewright.data.streaming.rows import Made, RowMaker

if TYPE_CHECKING:
    from tunewright.data.streaming.order import StreamOrder

PACKED_TOGETHER: Final = 1024
"""Slots whose rows are packed together: enough to fill sequences well, few enough to be made at once."""

_SAMPLE_BITS: Final = 40
_ENDS: Final = 1 << 16


class Findings(NamedTuple):
    """What was found in some slots: how many there were, rows of them that were dropped, and the notes on rows in the first turn of their
    sets, each with the name of its data set."""

    slots: int
    dropped: int
    notes: tuple[tuple[str, Note], ...]


@dataclass(frozen=True)
class Stream:
    """The training rows of a run as a stream. `capacity`: tokens of a packed sequence, None where rows are not packed. `settings` is a
    digest of all that decides how a row becomes tokens. `rows_each`: 2 where an example is a pair of answers."""

    order: StreamOrder
    rows: RowMaker
    capacity: int | None
    settings: str
    first_token: int | None = None
    rows_each: int = 1

    @property
    def packed_together(self) -> int:
        """Slots whose rows are packed together."""
        return min(PACKED_TOGETHER, self.order.buffer_size)

    def examples(self, raws: Sequence[RawRow]) -> tuple[list[list[Example]], list[Findings]]:
        """The training rows of each slot, one or none unless documents are split, and what was found there.

        A row is told of in each epoch, since an epoch need not reach every row; the audit keeps the first time.
        """
        examples, findings = [], []
        for raw, made in zip(raws, self.rows(raws), strict=True):
            examples.append([_example(made.pieces[at : at + self.rows_each], sample_id(raw))
                             for at in range(0, len(made.pieces), self.rows_each)])
            name = self.rows.files[raw.file].set_name
            notes = tuple((name, note) for note in made.notes) if raw.turn == 0 else ()
            findings.append(Findings(1, int(not made.pieces), notes))
        return examples, findings

    def packed(self, raws: Sequence[RawRow]) -> tuple[list[Example], Findings]:
        """The rows of slots that are packed together as sequences, each named by its first row."""
        examples, findings = self.examples(raws)
        rows = [one for of_slot in examples for one in of_slot]
        bins = pack([len(one.input_ids) for one in rows], self.capacity or 0)
        return [self._begun(_joined([rows[number] for number in numbers])) for numbers in bins], together(findings)

    def _begun(self, sequence: Example) -> Example:
        if self.first_token is None:
            return sequence
        return sequence._replace(input_ids=np.concatenate([np.array([self.first_token], np.int32), sequence.input_ids[1:]]))

    def origin(self, sample: int) -> Origin:
        """Where the sample came from. Reads its file up to its line: for messages, not for work."""
        number, index = divmod(sample, 1 << _SAMPLE_BITS)
        file = self.rows.files[number].file
        line = next((raw.line for raw in islice(raw_rows(file, number, 0), index, None)), None)
        return Origin(str(file.path), index, line)

    def digest(self) -> str:
        """A hexadecimal digest over settings, and name, size, first and last bytes of every file: other data has another."""
        digest = hashlib.sha256(repr([self.settings, self.order.strategy, self.order.probabilities, self.order.buffer_size, self.order.seed,
                                      [one.max_samples for one in self.order.sets], sorted(self.order.held_out)]).encode())
        for streamed in self.rows.files:
            digest.update(repr([streamed.set_name, layout_facts(streamed.layout)]).encode())
            digest.update(_file_ends(streamed.file.path))
        return digest.hexdigest()

    def head(self, slots: int) -> ExampleSet:
        """The training rows of the first slots, in order, to look at; packed, the sequences of those that are packed together."""
        taken = slots if self.capacity is None else self.packed_together
        made = [one for raws in islice(self.order.portions(0, 0, taken), 1) for one in self.rows(raws)]
        found = example_set(made, self)
        if self.capacity is None:
            return found
        return found.packed(self.capacity) if self.first_token is None else found.packed(self.capacity).with_first_token(self.first_token)


def sample_id(raw: RawRow) -> int:
    """The number by which a row is known: of its file, and of the row in it."""
    return raw.file << _SAMPLE_BITS | raw.row


def together(findings: Sequence[Findings]) -> Findings:
    """What was found in several parts."""
    return Findings(sum(one.slots for one in findings), sum(one.dropped for one in findings),
                    tuple(note for one in findings for note in one.notes))


def example_set(made: Sequence[Made], stream: Stream) -> ExampleSet:
    """Rows of the stream, held in memory."""
    builder = StoreBuilder(list(dict.fromkeys(str(one.file.path) for one in stream.rows.files)))
    for one in made:
        for piece in one.pieces:
            builder.add(piece, one.origin)
    return ExampleSet.of([builder.build()], stream.rows_each)


def _example(rows: Sequence[Tokens], sample: int) -> Example:
    one = rows[0]
    if len(rows) == 1:
        return Example(one.input_ids, one.labels, np.array([0, len(one.input_ids)], np.int32), sample, one.mark)
    bounds = np.cumsum([0, *(len(row.input_ids) for row in rows)], dtype=np.int32)
    return Example(np.concatenate([row.input_ids for row in rows]), np.concatenate([row.labels for row in rows]), bounds, sample)


def _joined(rows: Sequence[Example]) -> Example:
    bounds = np.cumsum([0, *(len(one.input_ids) for one in rows)], dtype=np.int32)
    return Example(np.concatenate([one.input_ids for one in rows]), np.concatenate([one.labels for one in rows]), bounds,
                   rows[0].sample_id)


def _file_ends(path: Path) -> bytes:
    """Name and size of the file, and its first and last bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_ENDS)
        file.seek(max(0, size - _ENDS))
        return f"{path.name} {size}".encode() + head + file.read()

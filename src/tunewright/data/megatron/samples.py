"""Training sequences over Megatron's files: of one stream, and of a blend of several. Tokens stay in the files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tunewright.data.collate import Example
from tunewright.data.megatron.blend import Draws
from tunewright.data.megatron.sets import foreign_token
from tunewright.data.megatron.stream import Cuts, Stream, Stretch
from tunewright.data.records import IGNORE_INDEX, Origin

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class StreamSet:
    """The sequences `cuts` of a stream (`data.examples.PreparedSet`).

    `isolated`: each document of a sequence is a segment of its own, which attends to itself and does not predict its first token.
    Otherwise a sequence is one segment, as in Megatron: documents see what lies before them, and are told apart by the token that
    ends each. Raises `InputError` for a token id from `vocab_size` on when it is read.
    """

    stream: Stream
    cuts: Cuts
    isolated: bool
    vocab_size: int

    def __len__(self) -> int:
        return len(self.cuts.begins)

    def __getitem__(self, index: int) -> Example:
        found = self._stretch(index)
        ids = found.ids
        if int(ids.min()) < 0 or int(ids.max()) >= self.vocab_size:
            raise self._foreign(found)
        input_ids = ids.astype(np.int32)
        bounds = np.array([0, *(found.borders if self.isolated else ()), len(ids)], np.int32)
        labels = input_ids.copy()
        labels[bounds[:-1]] = IGNORE_INDEX
        return Example(input_ids, labels, bounds, index)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """[n] in tokens."""
        return self.cuts.ends - self.cuts.begins

    @property
    def num_tokens(self) -> int:
        """Tokens of all sequences; the one at the border of two is in both."""
        return int(self.lengths.sum())

    @property
    def num_trained_tokens(self) -> int:
        """Labels that are trained: all but the first of each sequence, and of each document that is a segment."""
        firsts = 0
        if self.isolated:
            starts = self.stream.documents()[:-1]
            at = np.searchsorted(self.cuts.begins, starts, side="left") - 1  # the last sequence that begins before the document
            inside = at >= 0
            firsts = int((starts[inside] < self.cuts.ends[at[inside]]).sum())
        return self.num_tokens - len(self) - firsts

    def origin(self, index: int) -> Origin:
        """The document in which the sequence begins."""
        return self.origins(index)[0]

    def origins(self, index: int) -> tuple[Origin, ...]:
        """The documents of the sequence, in order."""
        return tuple(Origin(self.stream.source.file, document) for document in self._stretch(index).documents)

    def digest(self) -> str:
        """Of the files (see `IndexedTokens.digest`), the order of the documents and the borders of the sequences."""
        found = hashlib.sha256(f"{self.stream.source.digest()} {self.isolated}".encode())
        for array in (self.stream.sequences, self.stream.owners, *self.cuts):
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()

    def _stretch(self, index: int) -> Stretch:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.stream.read(int(self.cuts.begins[index]), int(self.cuts.ends[index]))

    def _foreign(self, found: Stretch) -> Exception:
        at = int(np.argmax((found.ids < 0) | (found.ids >= self.vocab_size)))
        document = found.documents[int(np.searchsorted(found.borders, at, side="right"))]
        return foreign_token(Origin(self.stream.source.file, document), int(found.ids[at]), self.vocab_size)


@dataclass(frozen=True, eq=False)
class BlendedSet:
    """Sequences drawn from several sets (`data.examples.PreparedSet`): sequence i is number draws.rows[i] of set draws.sets[i]."""

    sets: Sequence[StreamSet]
    draws: Draws

    def __len__(self) -> int:
        return len(self.draws.sets)

    def __getitem__(self, index: int) -> Example:
        drawn, row = self._drawn(index)
        return drawn[row]._replace(sample_id=index)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """[n] in tokens."""
        found = np.empty(len(self), np.int64)
        for number, one in enumerate(self.sets):
            mine = self.draws.sets == number
            found[mine] = one.lengths[self.draws.rows[mine]]
        return found

    @property
    def num_tokens(self) -> int:
        """Tokens of all draws."""
        return int(self.lengths.sum())

    @property
    def num_trained_tokens(self) -> int:
        """Labels that are trained, of all draws."""
        total = 0
        for number, one in enumerate(self.sets):
            turns, rest = divmod(int((self.draws.sets == number).sum()), max(len(one), 1))
            first = StreamSet(one.stream, Cuts(one.cuts.begins[:rest], one.cuts.ends[:rest]), one.isolated, one.vocab_size)
            total += turns * one.num_trained_tokens + first.num_trained_tokens
        return total

    def origin(self, index: int) -> Origin:
        """The document in which the sequence begins."""
        drawn, row = self._drawn(index)
        return drawn.origin(row)

    def origins(self, index: int) -> tuple[Origin, ...]:
        """The documents of the sequence, in order."""
        drawn, row = self._drawn(index)
        return drawn.origins(row)

    def digest(self) -> str:
        """Of the sets and the draws."""
        found = hashlib.sha256(" ".join(one.digest() for one in self.sets).encode())
        found.update(self.draws.sets.tobytes() + self.draws.rows.tobytes())
        return found.hexdigest()

    def _drawn(self, index: int) -> tuple[StreamSet, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.sets[self.draws.sets[index]], int(self.draws.rows[index])

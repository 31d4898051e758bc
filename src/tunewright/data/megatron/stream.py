"""Documents laid end to end, and sequences cut out of them. Nothing is read before a sequence is asked for.

A *stream* is the documents of one file in a chosen order; its positions count tokens. Sequences are stretches of it.

The token at a border. Our labels are the tokens at their own places, and the loss shifts: a sequence of L tokens has L - 1
predictions, and its first token is none of them. Were the stream cut into pieces of L, one token in L would never be predicted.
So each sequence begins with the last token of the one before, as context only: sequences of L tokens begin every L - 1
tokens, and each token of the stream but its first is predicted exactly once. Megatron draws L + 1 tokens every L instead; with
`cutoff_len` one more than its `--seq-length` the sequences are the same to the token. Its last, shorter sequence, which
Megatron leaves out, is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tunewright.data.megatron.reader import IndexedTokens

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Stretch(NamedTuple):
    """Tokens of a stream: ids [length] in the file's format, the positions among them at which another document begins, and the
    documents. With one sequence of the file they are not copied."""

    ids: NDArray[Any]
    borders: list[int]
    documents: list[int]


class Cuts(NamedTuple):
    """Sequences of a stream: sequence i is the positions begins[i] to ends[i] - 1; both [n] int64."""

    begins: NDArray[np.int64]
    ends: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Stream:
    """sequences, owners [S] int64: numbers of the file's sequences in this order, and of their documents; starts [S + 1]: where each
    begins in the stream. Empty sequences are left out."""

    source: IndexedTokens
    sequences: NDArray[np.int64]
    owners: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, source: IndexedTokens, documents: NDArray[np.int64]) -> Stream:
        """The documents of the file end to end, in this order."""
        first = source.documents[documents]
        counts = source.documents[documents + 1] - first
        if (counts == 1).all():
            sequences, owners = first, documents
        else:
            before = np.cumsum(counts) - counts
            sequences = np.repeat(first - before, counts) + np.arange(int(counts.sum()))
            owners = np.repeat(documents, counts)
        lengths = source.lengths[sequences].astype(np.int64)
        if not lengths.all():
            sequences, owners, lengths = sequences[lengths > 0], owners[lengths > 0], lengths[lengths > 0]
        return cls(source, sequences, owners, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, begin: int, end: int) -> Stretch:
        """The tokens at the positions begin to end - 1."""
        first = int(np.searchsorted(self.starts, begin, side="right")) - 1
        stop = int(np.searchsorted(self.starts, end, side="left"))
        here = self.starts[first : stop + 1].tolist()
        bases = self.source.starts[self.sequences[first:stop]].tolist()
        owners = self.owners[first:stop].tolist()
        tokens = self.source.tokens
        parts, borders, documents = [], [], [owners[0]]
        for number, (base, at, beyond) in enumerate(zip(bases, here[:-1], here[1:], strict=True)):
            parts.append(tokens[base + max(begin - at, 0) : base + min(end, beyond) - at])
            if owners[number] != documents[-1]:
                borders.append(at - begin)
                documents.append(owners[number])
        return Stretch(parts[0] if len(parts) == 1 else np.concatenate(parts), borders, documents)

    def documents(self) -> NDArray[np.int64]:
        """[D + 1] positions at which each document that holds a token begins, and the end."""
        if len(self.owners) == 0:
            return self.starts
        changes = np.flatnonzero(np.diff(self.owners)) + 1
        return self.starts[np.concatenate([[0], changes, [len(self.owners)]])]


def end_to_end(length: int, longest: int) -> Cuts:
    """Sequences of `longest` tokens over a stream of `length`, each beginning with the last token of the one before."""
    begins = np.arange(0, max(length - 1, 0), longest - 1, dtype=np.int64)
    return Cuts(begins, np.minimum(begins + longest, length))


def by_document(starts: NDArray[np.int64], longest: int) -> Cuts:
    """The same within each document alone: starts [D + 1] -> no sequence reaches over a border. A document of one token has none."""
    sizes = np.diff(starts)
    counts = -(-(sizes - 1) // (longest - 1))
    before = np.cumsum(counts) - counts
    begins = np.repeat(starts[:-1], counts) + (longest - 1) * (np.arange(int(counts.sum())) - np.repeat(before, counts))
    return Cuts(begins, np.minimum(begins + longest, np.repeat(starts[1:], counts)))


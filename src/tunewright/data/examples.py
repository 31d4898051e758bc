"""Tokenised rows laid end to end in flat arrays, and sets of training sequences over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tunewright.data.collate import Example
from tunewright.data.packing import pack
from tunewright.data.records import IGNORE_INDEX, Origin

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Tokens(NamedTuple):
    """input_ids and labels [length] of one row, or of one piece of a document; the first label is IGNORE_INDEX."""

    input_ids: NDArray[np.int32]
    labels: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class TokenStore:
    """input_ids, labels [tokens] int32 of all rows end to end; row r is offsets[r]:offsets[r + 1].

    origins [rows, 3] int64: number of the file in `files`, 0-based row in it, line or 0. Arrays may be memory maps.
    """

    input_ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    offsets: NDArray[np.int64]
    origins: NDArray[np.int64]
    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def tokens(self, row: int) -> Tokens:
        """Ids and labels of one row, not copied."""
        begin, end = self.offsets[row], self.offsets[row + 1]
        return Tokens(np.asarray(self.input_ids[begin:end]), np.asarray(self.labels[begin:end]))

    def origin(self, row: int) -> Origin:
        """Where the row came from."""
        file, index, line = self.origins[row].tolist()
        return Origin(self.files[file], index, line or None)


class StoreBuilder:
    """Collects rows for a `TokenStore`."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = tuple(files)
        self._numbers = {file: number for number, file in enumerate(self._files)}
        self._tokens: list[Tokens] = []
        self._origins: list[tuple[int, int, int]] = []

    def add(self, tokens: Tokens, origin: Origin) -> None:
        """Append one row."""
        self._tokens.append(tokens)
        self._origins.append((self._numbers[origin.file], origin.index, origin.line or 0))

    def build(self) -> TokenStore:
        """The rows so far."""
        nothing = [np.empty(0, np.int32)]
        lengths = [len(tokens.input_ids) for tokens in self._tokens]
        return TokenStore(
            np.concatenate([tokens.input_ids for tokens in self._tokens] or nothing).astype(np.int32, copy=False),
            np.concatenate([tokens.labels for tokens in self._tokens] or nothing).astype(np.int32, copy=False),
            np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
            np.array(self._origins, np.int64).reshape(-1, 3),
            self._files,
        )


class Member(NamedTuple):
    """A row by the number of its store and its number there."""

    store: int
    row: int


@dataclass(frozen=True)
class ExampleSet:
    """Training sequences: example i is the rows members[bounds[i]:bounds[i + 1]] laid end to end.

    members [rows, 2] int64: store and row. bounds [examples + 1] int64: 0, 1, 2, ... unless packed. lengths [examples] int64 tokens.
    """

    stores: tuple[TokenStore, ...]
    members: NDArray[np.int64]
    bounds: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, stores: Sequence[TokenStore]) -> ExampleSet:
        """All rows of the stores, one after the other, each an example."""
        members = [np.stack([np.full(len(store), number), np.arange(len(store))], axis=1) for number,
                   store in enumerate(stores)]
        return cls._unpacked(tuple(stores), np.concatenate([np.empty((0, 2), np.int64), *members]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Example:
        parts = [self.stores[member.store].tokens(member.row) for member in self._members(index)]
        bounds = np.cumsum([0, *(len(part.input_ids) for part in parts)], dtype=np.int32)
        if len(parts) == 1:
            return Example(parts[0].input_ids, parts[0].labels, bounds, index)
        return Example(np.concatenate([part.input_ids for part in parts]),
                       np.concatenate([part.labels for part in parts]),
                       bounds, index)

    def origin(self, index: int) -> Origin:
        """Where the example, or the first row of a packed one, came from."""
        return self.origins(index)[0]

    def origins(self, index: int) -> tuple[Origin, ...]:
        """Where each segment of the example came from."""
        return tuple(self.stores[member.store].origin(member.row) for member in self._members(index))

    @property
    def num_tokens(self) -> int:
        """Tokens of all examples."""
        return int(self.lengths.sum())

    @property
    def num_trained_tokens(self) -> int:
        """Labels that are trained."""
        total = 0
        for number, store in enumerate(self.stores):
            if len(store):
                trained = np.add.reduceat(store.labels != IGNORE_INDEX, store.offsets[:-1], dtype=np.int64)
                total += int(trained[self.members[self.members[:, 0] == number, 1]].sum())
        return total

    def rows_by_origin(self) -> NDArray[np.int64]:
        """[rows]: the same number for all members that came from one row of a file, counted by first appearance."""
        keys = np.concatenate([
            np.concatenate([np.full((len(rows), 1), store), self.stores[store].origins[rows][:, :2]], axis=1)
            for store, rows in ((number, self.members[self.members[:, 0] == number,
                                                      1]) for number in range(len(self.stores)))])
        _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        return rank[inverse.reshape(-1)]

    def subset(self, rows: NDArray[np.int64]) -> ExampleSet:
        """The examples `rows` of a set that is not packed, in that order."""
        return self._unpacked(self.stores, self.members[rows])

    def packed(self, capacity: int) -> ExampleSet:
        """The same rows in sequences of up to `capacity` tokens."""
        bins = pack(self.lengths, capacity)
        order = np.array([row for rows in bins for row in rows], np.int64)
        bounds = np.cumsum([0, *map(len, bins)], dtype=np.int64)
        lengths = np.add.reduceat(self.lengths[order], bounds[:-1]) if bins else self.lengths
        return ExampleSet(self.stores, self.members[order], bounds, lengths)

    def _members(self, index: int) -> list[Member]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return [Member(*member) for member in self.members[self.bounds[index] : self.bounds[index + 1]].tolist()]

    @classmethod
    def _unpacked(cls, stores: tuple[TokenStore, ...], members: NDArray[np.int64]) -> ExampleSet:
        lengths = np.zeros(len(members), np.int64)
        for number, store in enumerate(stores):
            mine = members[:, 0] == number
            lengths[mine] = np.diff(store.offsets)[members[mine, 1]]
        return cls(stores, members, np.arange(len(members) + 1, dtype=np.int64), lengths)

"""Tokenised rows laid end to end in flat arrays, and sets of training sequences over them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from tunewright.data.collate import Example
from tunewright.data.packing import pack
from tunewright.data.records import IGNORE_INDEX, Origin

if TYPE_CHECKING:
    from numpy.typing import NDArray


_ROWS_AT_A_TIME = 4096


class PreparedSet(Protocol):
    """Training sequences, however they are kept: what a run, its checkpoints and its preview read of them."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[n] in tokens."""
        ...

    @property
    def num_tokens(self) -> int:
        """Tokens of all sequences."""
        ...

    @property
    def num_trained_tokens(self) -> int:
        """Labels that are trained."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def origin(self, index: int) -> Origin:
        """Where the sequence, or its first part, came from."""
        ...

    def origins(self, index: int) -> tuple[Origin, ...]:
        """Where each part of the sequence came from."""
        ...

    def digest(self) -> str:
        """A hexadecimal digest: another set, or the same in another order, has another."""
        ...


class Tokens(NamedTuple):
    """input_ids and labels [length] of one row, or of one piece of a document; the first label is IGNORE_INDEX. `mark` as in `Example`."""

    input_ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    mark: int = 0


@dataclass(frozen=True, slots=True)
class TokenStore:
    """input_ids, labels [tokens] int32 of all rows end to end; row r is offsets[r]:offsets[r + 1].

    origins [rows, 3] int64: number of the file in `files`, 0-based row in it, line or 0. marks [rows] int8: of `Example`, 0 where a row has
    none. Arrays may be memory maps.
    """

    input_ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    offsets: NDArray[np.int64]
    origins: NDArray[np.int64]
    marks: NDArray[np.int8]
    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def tokens(self, row: int) -> Tokens:
        """Ids and labels of one row, not copied, and its mark."""
        begin, end = self.offsets[row], self.offsets[row + 1]
        return Tokens(np.asarray(self.input_ids[begin:end]), np.asarray(self.labels[begin:end]), int(self.marks[row]))

    def trained(self) -> NDArray[np.int64]:
        """[n]: labels of each row that are trained, counted some rows at a time, so that no array is as long as the tokens."""
        counts = np.zeros(len(self), np.int64)
        for first in range(0, len(self), _ROWS_AT_A_TIME):
            offsets = np.asarray(self.offsets[first : first + _ROWS_AT_A_TIME + 1])
            labels = np.asarray(self.labels[offsets[0] : offsets[-1]])
            counts[first : first + len(offsets) - 1] = np.add.reduceat(labels != IGNORE_INDEX, offsets[:-1] - offsets[0], dtype=np.int64)
        return counts

    def whole_rows(self) -> NDArray[np.int64]:
        """[n + 1]: where each row of the files begins among the rows here; pieces of one document follow each other."""
        changes = np.flatnonzero((np.diff(self.origins[:, :2], axis=0) != 0).any(axis=1)) + 1
        return np.concatenate([[0], changes, [len(self)]]).astype(np.int64)

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
            np.array([tokens.mark for tokens in self._tokens], np.int8),
            self._files,
        )


class Member(NamedTuple):
    """A row by the number of its store and its number there."""

    store: int
    row: int


@dataclass(frozen=True)
class ExampleSet:
    """Training sequences: example i is the rows members[bounds[i]:bounds[i + 1]] laid end to end.

    members [rows, 2] int64: store and row. bounds [examples + 1] int64: 0, 1, 2, ... unless packed; 0, 2, 4, ... of pairs of answers,
    which are two rows each. lengths [examples] int64 tokens.
    """

    stores: tuple[TokenStore, ...]
    members: NDArray[np.int64]
    bounds: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, stores: Sequence[TokenStore], rows_each: int = 1) -> ExampleSet:
        """All rows of the stores, one after the other, each `rows_each` of them an example."""
        members = [np.stack([np.full(len(store), number), np.arange(len(store))], axis=1) for number,
                   store in enumerate(stores)]
        return cls._unpacked(tuple(stores), np.concatenate([np.empty((0, 2), np.int64), *members]).astype(np.int64), rows_each)

    @classmethod
    def mixed(cls, stores: Sequence[TokenStore], rows: Sequence[NDArray[np.int64]], order: NDArray[np.int64],
              rows_each: int = 1) -> ExampleSet:
        """The rows in `order` [n, 2] (store, row), each `rows_each` an example; row r of a store is its pieces
        rows[store][r]:rows[store][r + 1]."""
        first = np.cumsum([0, *(len(bounds) - 1 for bounds in rows)])[:-1]
        begins = np.concatenate([bounds[:-1] for bounds in rows])[first[order[:, 0]] + order[:, 1]]
        counts = np.concatenate([np.diff(bounds) for bounds in rows])[first[order[:, 0]] + order[:, 1]]
        places = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        members = np.stack([np.repeat(order[:, 0], counts), np.repeat(begins, counts) + places], axis=1)
        return cls._unpacked(tuple(stores), members.astype(np.int64), rows_each)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Example:
        parts = [self.stores[member.store].tokens(member.row) for member in self._members(index)]
        bounds = np.cumsum([0, *(len(part.input_ids) for part in parts)], dtype=np.int32)
        if len(parts) == 1:
            return Example(parts[0].input_ids, parts[0].labels, bounds, index, parts[0].mark)
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
                total += int(store.trained()[self.members[self.members[:, 0] == number, 1]].sum())
        return total

    def summary(self, noun: str = "rows") -> str:
        """Rows, or what else an example is, and tokens, for people."""
        return (f"{len(self)} {noun}, {self.num_tokens} tokens, {self.num_trained_tokens} of them trained, "
                f"longest {int(self.lengths.max(initial=0))}")

    def digest(self) -> str:
        """SHA-256 over every token, label, border and mark; where nothing is marked, over the others alone."""
        digest = hashlib.sha256()
        for store in self.stores:
            for array in (store.input_ids, store.labels, store.offsets, *([store.marks] if store.marks.any() else [])):
                digest.update(np.ascontiguousarray(array).data)
        digest.update(self.members.tobytes() + self.bounds.tobytes())
        return digest.hexdigest()

    def rows_by_origin(self) -> NDArray[np.int64]:
        """[rows]: the same number for all members that came from one row of a file, in whichever set, counted by first appearance."""
        numbers: dict[str, int] = {}
        keys = np.empty((len(self.members), 2), np.int64)
        for number, store in enumerate(self.stores):
            mine = self.members[:, 0] == number
            files = np.array([numbers.setdefault(file, len(numbers)) for file in store.files], np.int64)
            keys[mine, 0] = files[store.origins[self.members[mine, 1], 0]]
            keys[mine, 1] = store.origins[self.members[mine, 1], 1]
        _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        return rank[inverse.reshape(-1)]

    def subset(self, examples: NDArray[np.int64]) -> ExampleSet:
        """These examples, in that order."""
        counts = np.diff(self.bounds)[examples]
        bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        rows = np.arange(bounds[-1]) - np.repeat(bounds[:-1], counts) + np.repeat(self.bounds[:-1][examples], counts)
        return ExampleSet(self.stores, self.members[rows], bounds, self.lengths[examples])

    def packed(self, capacity: int, together: int | None = None) -> ExampleSet:
        """The same rows in sequences of up to `capacity` tokens; a sequence has rows of the same `together` of them, if that is given."""
        size = len(self) if together is None else together
        begins = range(0, len(self), max(1, size))
        bins = [[row + begin for row in rows] for begin in begins for rows in pack(self.lengths[begin : begin + size], capacity)]
        order = np.array([row for rows in bins for row in rows], np.int64)
        bounds = np.cumsum([0, *map(len, bins)], dtype=np.int64)
        lengths = np.add.reduceat(self.lengths[order], bounds[:-1]) if bins else self.lengths
        return ExampleSet(self.stores, self.members[order], bounds, lengths)

    def with_first_token(self, token: int) -> ExampleSet:
        """The same examples, the first token of each replaced: their first rows are copied for that."""
        firsts = self.bounds[:-1]
        builder = StoreBuilder(sorted({file for store in self.stores for file in store.files}))
        for store, row in self.members[firsts].tolist():
            tokens = self.stores[store].tokens(row)
            ids = tokens.input_ids.copy()
            ids[0] = token
            builder.add(tokens._replace(input_ids=ids), self.stores[store].origin(row))
        members = self.members.copy()
        members[firsts] = np.stack([np.full(len(firsts), len(self.stores)), np.arange(len(firsts))], axis=1)
        return ExampleSet((*self.stores, builder.build()), members, self.bounds, self.lengths)

    def _members(self, index: int) -> list[Member]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return [Member(*member) for member in self.members[self.bounds[index] : self.bounds[index + 1]].tolist()]

    @classmethod
    def _unpacked(cls, stores: tuple[TokenStore, ...], members: NDArray[np.int64], rows_each: int) -> ExampleSet:
        lengths = np.zeros(len(members), np.int64)
        for number, store in enumerate(stores):
            mine = members[:, 0] == number
            lengths[mine] = np.diff(store.offsets)[members[mine, 1]]
        return cls(stores, members, np.arange(0, len(members) + 1, rows_each, dtype=np.int64), lengths.reshape(-1, rows_each).sum(axis=1))

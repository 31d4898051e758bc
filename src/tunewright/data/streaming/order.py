"""The order of a stream, as a pure function of (seed, epoch): raw rows mixed, then shuffled block by block.

A *slot* is a place in that order; it holds one raw row, whatever becomes of the row. Slots are numbered from 0 in each epoch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice
from typing import Final, TypeVar

from tunewright.data.files import DataFile
from tunewright.data.mixing import ONCE, UNDER, demand_probabilities, set_draws
from tunewright.data.sampling import permutation
from tunewright.data.streaming.raw import RawRow, raw_rows

T = TypeVar("T")

_BLOCK, _FILES = 104, 105
"""Third entry of the key, which keeps the draws of this module apart from others (see `data.mixing`)."""

_NEVER: Final = -1


@dataclass(frozen=True, slots=True)
class RawSet:
    """The files of a data set, `first_file` being the number of its first in the stream; only its first `max_samples` rows are used."""

    files: tuple[DataFile, ...]
    first_file: int
    max_samples: int | None = None

    def rows(self, order: Sequence[int], turn: int) -> Iterator[RawRow]:
        """The rows with the files in the given order, the `turn`-th time in this epoch."""
        found = chain.from_iterable(raw_rows(self.files[number], self.first_file + number, turn) for number in order)
        return islice(found, self.max_samples)


@dataclass(frozen=True, slots=True)
class StreamOrder:
    """How the sets become one stream. `held_out` rows, by (file, index), are in no epoch; `same_file` gives each file's number there:
    a file that is named twice has one. `shuffled` or in the order of the files."""

    sets: tuple[RawSet, ...]
    strategy: str
    probabilities: tuple[float, ...]
    buffer_size: int
    seed: int
    shuffled: bool
    same_file: tuple[int, ...]
    held_out: frozenset[tuple[int, int]] = frozenset()

    def slots(self, epoch: int, offset: int) -> Iterator[RawRow]:
        """The rows of the epoch's slots from `offset` on; those before its block are passed over unread."""
        return chain.from_iterable(self.blocks(epoch, offset))

    def portions(self, epoch: int, offset: int, size: int) -> Iterator[list[RawRow]]:
        """The same, `size` slots at a time; the last may be short."""
        rest: list[RawRow] = []
        for block in self.blocks(epoch, offset):
            rest += block
            whole = len(rest) - len(rest) % size
            yield from (rest[at : at + size] for at in range(0, whole, size))
            rest = rest[whole:]
        if rest:
            yield rest

    def blocks(self, epoch: int, offset: int) -> Iterator[list[RawRow]]:
        """The same, as many as are in memory at once: blocks of `buffer_size` rows, of the first only what is left after `offset`."""
        number, passed = divmod(offset, self.buffer_size)
        rows = self._kept(self.mixture(epoch))
        _pass_over(rows, number * self.buffer_size)
        while block := list(islice(rows, self.buffer_size)):
            if self.shuffled:
                block = [block[place] for place in permutation(len(block), (self.seed, epoch, _BLOCK, number)).tolist()]
            yield block[passed:] if passed else block
            passed = 0
            number += 1

    def mixture(self, epoch: int) -> Iterator[RawRow]:
        """The rows of all sets as they are mixed, before they are shuffled."""
        orders = [self._file_order(epoch, number) for number in range(len(self.sets))]
        if self.strategy == "concat" or len(self.sets) == 1:
            return chain.from_iterable(one.rows(order, 0) for one, order in zip(self.sets, orders, strict=True))
        return self._interleaved([_Cursor(one, order) for one, order in zip(self.sets, orders, strict=True)])

    def _kept(self, rows: Iterator[RawRow]) -> Iterator[RawRow]:
        if not self.held_out:
            return rows
        return (row for row in rows if (self.same_file[row.file], row.row) not in self.held_out)

    def _file_order(self, epoch: int, number: int) -> list[int]:
        """Files of a set in the order of this epoch. The first rows of a set are those of its first files, in every epoch."""
        one = self.sets[number]
        if not self.shuffled or one.max_samples is not None:
            return list(range(len(one.files)))
        return permutation(len(one.files), (self.seed, epoch, _FILES, number)).tolist()

    def _interleaved(self, cursors: list[_Cursor]) -> Iterator[RawRow]:
        """As `data.mixing.interleaved`, whose numbers of rows are not known here: a set is at its end when no row follows."""
        by_draws = bool(self.probabilities)
        least = 1 if self.strategy == UNDER else len(cursors)
        last_of_round = _NEVER if by_draws else len(cursors) - 1
        whole = 0
        for number in self._turns(len(cursors)):
            cursor = cursors[number]
            if self.strategy != ONCE or cursor.turn == 0:
                yield cursor.take()
                whole += cursor.has_just_ended and cursor.turn == 1
            if whole >= least and (by_draws or self.strategy == ONCE or number == last_of_round):
                return

    def _turns(self, number: int) -> Iterator[int]:
        """Which set comes next, without end."""
        if not self.probabilities:
            return cycle(range(number))
        demand_probabilities(self.probabilities, number)
        return chain.from_iterable(part.tolist() for part in set_draws(self.probabilities, self.seed))


class _Cursor:
    """Rows of a set, again and again; looks one row ahead, to know the last of a turn when it is taken."""

    def __init__(self, rows_of: RawSet, order: Sequence[int]) -> None:
        self._set = rows_of
        self._order = order
        self._rows: Iterator[RawRow] = iter(())
        self._next: RawRow | None = None
        self.turn = 0
        self.has_just_ended = False

    def take(self) -> RawRow:
        """The next row; after the last one of a turn `has_just_ended`, and `turn` counts the next."""
        row = self._next
        if row is None:
            self._rows = self._set.rows(self._order, self.turn)
            row = next(self._rows)
        self._next = next(self._rows, None)
        self.has_just_ended = self._next is None
        self.turn += self.has_just_ended
        return row


def _pass_over(rows: Iterable[T], number: int) -> None:
    """Read `number` of them and keep none."""
    deque(islice(rows, number), maxlen=0)



"""Conversations that are longer than a row may be: where their answers lie, and how they become several rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tunewright.data.cutting import Pair, in_proportion, most_that_fit, pairs_of, together
from tunewright.data.records import Conversation, Message, Record

Ints = Sequence[int] | NDArray[np.int32]
Row = tuple[Ints, Ints]
Encode = Callable[[Sequence[Record]], Sequence[Row]]
"""Records -> (ids, labels) of each, at full length."""


@dataclass(frozen=True, slots=True)
class LongRows:
    """`encode` is the run's; `mark` gives a label to every token of every answer that may be trained, and to no other. `last_first`: only
    the last answer is trained (mask_history), so that it is served first."""

    encode: Encode
    mark: Encode
    last_first: bool

    def in_proportion(self, record: Record, row: Row, cutoff_len: int) -> Row:
        """The row cut by LLaMA-Factory's rule, pair by pair."""
        pairs = self._pairs(record, row)
        return _kept(row, in_proportion(reversed(pairs) if self.last_first else pairs, cutoff_len))

    def pieces(self, record: Record, row: Row, cutoff_len: int) -> list[tuple[Record, Row]]:
        """The row as several, each as long as `cutoff_len` allows and whole turns of it; one that no turn border divides may be longer.

        A conversation is divided before a question; the system prompt and the tools are in every piece, rendered by the template as in
        a conversation of its own. Tokens are divided after an answer, or anywhere if they are all answer.
        """
        if isinstance(record, Conversation):
            return self._conversations(record, cutoff_len)
        pairs = pairs_of(row[1])
        if len(pairs) == 1 and pairs[0].answer <= 1:
            return [(record, _part(row, slice(at, at + cutoff_len))) for at in range(0, len(row[0]), cutoff_len)]
        return [(record, _part(row, part)) for part in together(pairs, cutoff_len)]

    def _conversations(self, conversation: Conversation, cutoff_len: int) -> list[tuple[Record, Row]]:
        head, turns = turns_apart(conversation.messages)
        found: list[tuple[Record, Row]] = []
        at = 0
        while at < len(turns):
            tried = _Tried(self, conversation, head, turns, at)
            count = most_that_fit(len(turns) - at, partial(tried.fits, cutoff_len))
            found.append((tried.piece(count), tried.row(count)))
            at += count
        return found

    def _pairs(self, record: Record, row: Row) -> list[Pair]:
        """The pairs of a row, by the labels that it has if every answer is trained."""
        if not isinstance(record, Conversation):
            return pairs_of(row[1])
        all_trained = tuple(replace(message, trained=True) for message in record.messages)
        ids, labels = self.mark([replace(record, messages=all_trained)])[0]
        return pairs_of(labels if len(ids) == len(row[0]) else row[1])


@dataclass(frozen=True, slots=True)
class _Tried:
    """Pieces of a conversation that begin at one of its turns, by how many turns they have."""

    rows: LongRows
    conversation: Conversation
    head: Sequence[Message]
    turns: Sequence[Sequence[Message]]
    begin: int

    def piece(self, count: int) -> Conversation:
        """The piece of `count` turns; where only the last answer of the conversation is trained, other pieces have none."""
        messages = [message for turn in self.turns[self.begin : self.begin + count] for message in turn]
        if self.rows.last_first and self.begin + count < len(self.turns):
            messages = [replace(message, trained=False) for message in messages]
        return replace(self.conversation, messages=(*self.head, *messages))

    def fits(self, cutoff_len: int, count: int) -> bool:
        """Whether it is not too long."""
        return len(self.row(count)[0]) <= cutoff_len

    def row(self, count: int) -> Row:
        """Its tokens."""
        return self.rows.encode([self.piece(count)])[0]


def turns_apart(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """The leading system prompts, and the rest cut before every question that follows an answer."""
    begin = next((at for at, message in enumerate(messages) if message.role != "system"), len(messages))
    turns: list[list[Message]] = []
    for number, message in enumerate(messages[begin:], start=begin):
        if not turns or (message.role == "user" and messages[number - 1].role == "assistant"):
            turns.append([])
        turns[-1].append(message)
    return list(messages[:begin]), turns


def _kept(row: Row, parts: Sequence[slice]) -> Row:
    ids, labels = (np.asarray(one, np.int32) for one in row)
    return np.concatenate([ids[part] for part in parts]), np.concatenate([labels[part] for part in parts])


def _part(row: Row, part: slice) -> Row:
    ids, labels = (np.asarray(one, np.int32) for one in row)
    return ids[part], labels[part]

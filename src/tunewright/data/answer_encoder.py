"""Pairs of answers and answers with a mark to training rows: prompt and answer, of which the answer alone is trained.

A row ends with its last trained token, the terminator of the answer: what a template writes behind it is left out. Whatever the labels of
its turns, nothing of the prompt is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunewright.data.audit import Note
from tunewright.data.cutting import answer_parts
from tunewright.data.encoding import CUTS, Encoded
from tunewright.data.examples import Tokens
from tunewright.data.formats.pairs import SAME
from tunewright.data.formats.turns import NO_TRAINED_TOKEN
from tunewright.data.long_rows import Encode, Row
from tunewright.data.records import IGNORE_INDEX, Conversation, Feedback, Message, Preference, Record

OTHER_PROMPT = "the template writes another prompt before rejected than before chosen: that of chosen is taken for both"

Ids = NDArray[np.int32]


class Answered(NamedTuple):
    """The ids of a prompt and of one answer to it, and the labels of the answer, whose first one and last one are trained."""

    prompt: Ids
    answer: Ids
    labels: Ids


@dataclass(frozen=True, slots=True)
class AnswerEncoder:
    """Encodes a chunk of preferences, two rows each, or of feedback, one row each. `encode` renders conversations."""

    encode: Encode
    cutoff_len: int
    cutoff_policy: str

    @property
    def splits(self) -> bool:
        """Never: a record is one example."""
        return False

    def __call__(self, records: Sequence[Record]) -> list[Encoded]:
        """Each record in order; pure, so that it can run in any process."""
        asked = [conversations_of(record) for record in records]
        rows = iter(self.encode([conversation for several in asked for conversation in several]))
        return [self._encoded(record, [answered(next(rows)) for _ in several]) for record, several in zip(records, asked, strict=True)]

    def _encoded(self, record: Record, found: Sequence[Answered | None]) -> Encoded:
        answers = [one for one in found if one is not None]
        size = max((len(one.prompt) + len(one.answer) for one in answers), default=0)
        if len(answers) < len(found):
            return Encoded(record.origin, (), (Note(record.origin, "dropped", NO_TRAINED_TOKEN, "an answer has weight 0"),), size)
        notes = []
        if any(not np.array_equal(one.prompt, answers[0].prompt) for one in answers):
            notes.append(Note(record.origin, "changed", OTHER_PROMPT))
            answers = [one._replace(prompt=answers[0].prompt) for one in answers]
            size = len(answers[0].prompt) + max(len(one.answer) for one in answers)
        if size <= self.cutoff_len:
            return self._checked(record, answers, notes, size)
        return self._long(record, answers, notes, size)

    def _long(self, record: Record, answers: list[Answered], notes: list[Note], size: int) -> Encoded:
        """A record with a row that is too long."""
        prompt, longest = len(answers[0].prompt), max(len(one.answer) for one in answers)
        before = sum(prompt + len(one.answer) for one in answers)
        reason = f"longer than cutoff_len {self.cutoff_len}"
        detail = f"prompt of {prompt} tokens, then {' or '.join(str(len(one.answer)) for one in answers)}"
        kept = answer_parts(prompt, longest, self.cutoff_len, self.cutoff_policy)
        if kept is None:
            said = reason if self.cutoff_policy == "drop" else NO_TRAINED_TOKEN
            detail += "" if self.cutoff_policy == "drop" else f", {reason}: {CUTS[self.cutoff_policy]}"
            return Encoded(record.origin, (), (*notes, Note(record.origin, "dropped", said, detail, before)), size)
        cut = [_ended(one.prompt[kept[0]], one.answer[kept[1]], one.labels[kept[1]]) for one in answers]
        lost = before - sum(len(one.prompt) + len(one.answer) for one in cut)
        note = Note(record.origin, "changed", f"{reason}: {CUTS[self.cutoff_policy]}", detail, lost)
        return self._checked(record, cut, [*notes, note], size)

    def _checked(self, record: Record, answers: Sequence[Answered], notes: Sequence[Note], size: int) -> Encoded:
        """The rows, unless they are the same: a pair without a difference trains nothing."""
        pieces = tuple(_tokens(one, mark_of(record)) for one in answers)
        if len(pieces) == 2 and all(np.array_equal(*each) for each in zip(*(piece[:2] for piece in pieces), strict=True)):
            cut = [note.tokens_lost for note in notes if note.tokens_lost is not None]
            detail = "as tokens, after they were cut" if cut else "as tokens"
            lost = sum(cut) + sum(len(piece.input_ids) for piece in pieces) if cut else None
            return Encoded(record.origin, (), (Note(record.origin, "dropped", SAME, detail, lost),), size)
        return Encoded(record.origin, pieces, tuple(notes), size, are_answers=True)


def conversations_of(record: Record) -> tuple[Conversation, ...]:
    """The prompt of a record with each of its answers, of which these alone are trained."""
    if isinstance(record, Preference):
        context = _as_context(record.messages)
        return tuple(Conversation((*context, *answer), record.origin, record.tools) for answer in (record.chosen, record.rejected))
    if isinstance(record, Feedback):
        answer = replace(record.messages[-1], trained=True)
        return (Conversation((*_as_context(record.messages[:-1]), answer), record.origin, record.tools),)
    raise TypeError(f"{type(record).__name__} has no answers that are compared or marked")


def mark_of(record: Record) -> int:
    """1 and -1 for feedback, 0 for anything else."""
    return (1 if record.desirable else -1) if isinstance(record, Feedback) else 0


def answered(row: Row) -> Answered | None:
    """The row apart at the first token that is trained, without what follows the last one; None if there is none."""
    ids, labels = (np.asarray(one, np.int32) for one in row)
    places = np.flatnonzero(labels != IGNORE_INDEX)
    return _ended(ids[: places[0]], ids[places[0] :], labels[places[0] :]) if len(places) else None


def _ended(prompt: Ids, answer: Ids, labels: Ids) -> Answered:
    """The answer up to its last trained token."""
    end = int(np.flatnonzero(labels != IGNORE_INDEX)[-1]) + 1
    return Answered(prompt, answer[:end], labels[:end])


def _tokens(one: Answered, mark: int) -> Tokens:
    return Tokens(np.concatenate([one.prompt, one.answer]),
                  np.concatenate([np.full(len(one.prompt), IGNORE_INDEX, np.int32), one.labels]), mark)


def _as_context(messages: Sequence[Message]) -> tuple[Message, ...]:
    return tuple(replace(message, trained=False) if message.role == "assistant" else message for message in messages)

"""One row as the checks see it: its columns, its record, and the texts of the record. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tunewright.data.records import Conversation, Feedback, Message, Origin, Preference, Prompt, Record, Text


@dataclass(frozen=True)
class Seen:
    """A row that could be read. `values` are its columns as the file has them."""

    dataset: str
    origin: Origin
    values: Mapping[str, Any]
    record: Record

    @cached_property
    def messages(self) -> tuple[Message, ...]:
        """All turns, those of both answers of a pair included; none of a document."""
        record = self.record
        if isinstance(record, Conversation | Feedback | Prompt):
            return record.messages
        return (*record.messages, *record.chosen, *record.rejected) if isinstance(record, Preference) else ()

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The text of every turn, or the document."""
        return (self.record.text,) if isinstance(self.record, Text) else tuple([message.content for message in self.messages])

    @cached_property
    def joined(self) -> str:
        """All texts, to look once for what is rarely there."""
        return self.texts[0] if len(self.texts) == 1 else "\n".join(self.texts)

    @property
    def answer(self) -> Message | None:
        """The last turn if it is an answer, of a pair the last of the better answer."""
        turns = self.record.chosen if isinstance(self.record, Preference) else self.messages
        return turns[-1] if turns and turns[-1].role == "assistant" else None

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The turns before the last answer; of a pair those before both."""
        if isinstance(self.record, Preference):
            return self.record.messages
        return self.messages[:-1] if self.answer is not None else self.messages

    def answers(self) -> Iterator[tuple[int, Message]]:
        """Every answer with the number of its turn, counted from 1."""
        return ((number, one) for number, one in enumerate(self.messages, start=1) if one.role == "assistant")

    def label(self, index: int) -> str:
        """What text `index` is, for people: `turn 2 (assistant)`, or `the document`."""
        return f"turn {index + 1} ({self.messages[index].role})" if self.messages else "the document"

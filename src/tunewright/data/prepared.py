"""What a run trains on, evaluates on and answers: the examples that were made of its data sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunewright.config.data import VALIDATION
from tunewright.data.audit import Audit
from tunewright.data.examples import PreparedSet
from tunewright.data.formats.fields import Converted
from tunewright.data.records import Conversation, Feedback, Message, Origin, Preference, Prompt
from tunewright.data.sources import Settled, outcomes
from tunewright.errors import InputError

if TYPE_CHECKING:
    from tunewright.data.streaming.stream import Stream


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A row for prediction: everything before the last answer, and the text of that answer to compare with."""

    messages: tuple[Message, ...]
    label: str
    origin: Origin
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Prepared:
    """The examples of a run. `train` is None without training; `evaluation` is by name; `audit` covers all rows read.

    `is_split`: a row of a file may be several examples, for each of which it is not answered again. `trained_from`: the data sets of
    `train`, absent where it was kept as tokens.
    """

    train: PreparedSet | Stream | None
    evaluation: Mapping[str, PreparedSet]
    audit: Audit
    sources: Mapping[str, tuple[Settled, ...]] = field(repr=False)
    is_split: bool = False
    trained_from: tuple[Settled, ...] = field(default=(), repr=False)

    def prompts(self, name: str = VALIDATION) -> list[PromptRow]:
        """The rows of an evaluation set for prediction, in its order, read again from their files."""
        examples = self.evaluation[name]
        if name not in self.sources:
            raise InputError("tokenized_path holds tokens, not the answers to compare with", mend="leave tokenized_path out for prediction")
        wanted = list(dict.fromkeys(examples.origin(index) for index in range(len(examples)))) if self.is_split else [
            examples.origin(index) for index in range(len(examples))]
        places = {(origin.file, origin.index) for origin in wanted}
        found = {}
        for settled in self.sources[name]:
            for origin, outcome in outcomes(settled):
                if (origin.file, origin.index) in places and isinstance(outcome, Converted):
                    found[origin.file, origin.index] = _prompt_row(outcome.record)
                if len(found) == len(places):
                    break
        return [found[origin.file, origin.index] for origin in wanted]


def _prompt_row(record: object) -> PromptRow:
    """A conversation, or a pair, whose better answer is the one to compare with."""
    if isinstance(record, Preference):
        return PromptRow((*record.messages, *record.chosen[:-1]), _answer_text(record.chosen[-1]), record.origin, record.tools)
    if isinstance(record, Prompt | Feedback):
        raise InputError("prediction compares with answers, and these rows have none that are known to be good", where=str(record.origin),
                         mend="set stage: sft, and give conversations")
    if not isinstance(record, Conversation):
        raise InputError("prediction needs conversations, not documents or tokens", mend="set stage: sft, and give rows of text")
    return PromptRow(record.messages[:-1], _answer_text(record.messages[-1]), record.origin, record.tools)


def _answer_text(message: Message) -> str:
    calls = "\n".join(f'{{"name": "{call.name}", "arguments": {call.raw}}}' for call in message.tool_calls)
    return "\n".join(part for part in (message.content, calls) if part)

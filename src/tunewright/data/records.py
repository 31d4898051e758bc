"""What a row of data becomes before it is tokenised. Standard library only.

Roles are `system`, `user`, `assistant`, `tool`. Formats (`data.formats`) build these from rows; `data.templates` renders
them; `data.tokenize` turns the render into ids and labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]

IGNORE_INDEX = -100
"""Label of a position that is not trained; torch's cross-entropy skips it by default."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row came from: `file`, 1-based `line` where the format has lines, 0-based `index` of the row in the file."""

    file: str
    index: int
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line is not None else f"{self.file} row {self.index + 1}"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function call by the assistant; `arguments` is the parsed object, `raw` the text as the file had it, `id` what results refer to."""

    name: str
    arguments: Mapping[str, Any]
    raw: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `trained=False` on an assistant turn keeps it as context only (OpenAI's `weight: 0`, `mask_history`).

    `name` is the speaker's, or the tool's, where the row gives one; `call_id` the id of the call that a tool's result answers.
    """

    role: Role
    content: str
    trained: bool = True
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A document for pre-training."""

    text: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in order; a trailing assistant turn is the answer to train on (or the label to compare with in prediction)."""

    messages: tuple[Message, ...]
    origin: Origin
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Preference:
    """A prompt and two answers to it, the better one first.

    `messages` end with the user or a tool; each answer begins and ends with the assistant. All of `messages` is context, whatever
    `trained` says there.
    """

    messages: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    origin: Origin
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Feedback:
    """A conversation whose last answer somebody called good (`desirable`) or bad; earlier turns are context."""

    messages: tuple[Message, ...]
    desirable: bool
    origin: Origin
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an online method answers by itself; the last turn is the user's or a tool's."""

    messages: tuple[Message, ...]
    origin: Origin
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class TokenIds:
    """A row that was tokenised before; a label is the id at its own place, or IGNORE_INDEX."""

    input_ids: Sequence[int]
    labels: Sequence[int]
    origin: Origin


Record = Text | Conversation | Preference | Feedback | Prompt | TokenIds

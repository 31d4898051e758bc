"""What a row of data becomes before it is tokenised. Standard library only.

Roles are `system`, `user`, `assistant`, `tool`. Formats (`data.formats`) build these from rows; `data.templates` renders
them; `data.tokenize` turns the render into ids and labels.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    """A function call by the assistant; `arguments` is the parsed object, `raw` the text as the file had it."""

    name: str
    arguments: Mapping[str, Any]
    raw: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `trained=False` on an assistant turn keeps it as context only (OpenAI's `weight: 0`, `mask_history`)."""

    role: Role
    content: str
    trained: bool = True
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()


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


Record = Text | Conversation

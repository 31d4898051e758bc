"""TRL's prompt and completion: two strings, or two lists of messages. Strings become one user and one assistant turn."""

from __future__ import annotations

from dataclasses import replace

from tunewright.data.formats.fields import Outcome, Refusal, missing_column, optional_text, text, tools
from tunewright.data.formats.layout import Layout
from tunewright.data.formats.openai import message_list
from tunewright.data.formats.turns import conversation
from tunewright.data.json_rows import Row
from tunewright.data.records import Message, Role


def convert(row: Row, layout: Layout) -> Outcome:
    """The messages of both columns; answers inside the prompt are context, those of the completion are trained."""
    prompt = _messages(row, layout.columns["prompt"], "user", layout)
    completion = _messages(row, layout.columns["response"], "assistant", layout)
    if isinstance(prompt, Refusal):
        return prompt
    if isinstance(completion, Refusal):
        return completion
    system = optional_text(row, layout.column("system"))
    messages = [Message("system", system)] if system and prompt[:1] and prompt[0].role != "system" else []
    messages += [replace(message, trained=False) if message.role == "assistant" else message for message in prompt]
    return conversation([*messages, *completion], row.origin, tools(row, layout.column("tools")))


def _messages(row: Row, column: str, role: Role, layout: Layout) -> list[Message] | Refusal:
    if column not in row.values:
        raise missing_column(row, column)
    value = row.values[column]
    if isinstance(value, list):
        return message_list(value, column, layout.tags, row.origin)
    return [Message(role, text(value, column, row.origin))]

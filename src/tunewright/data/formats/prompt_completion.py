"""TRL's prompt and completion: two strings, or two lists of messages. Strings become one user and one assistant turn."""

from __future__ import annotations

from tunewright.data.formats.fields import Dialogue, Refusal, missing_column, text, tools
from tunewright.data.formats.layout import Layout
from tunewright.data.formats.messages import as_context, message_list, with_system
from tunewright.data.json_rows import Row
from tunewright.data.records import Message, Role


def read(row: Row, layout: Layout) -> Dialogue | Refusal:
    """The messages of both columns; answers inside the prompt are context, those of the completion are trained."""
    prompt = one_side(row, layout.columns["prompt"], "user", layout)
    if isinstance(prompt, Refusal):
        return prompt
    completion = one_side(row, layout.columns["response"], "assistant", layout)
    if isinstance(completion, Refusal):
        return completion
    return Dialogue(with_system([*map(as_context, prompt), *completion], row, layout), tools(row, layout.column("tools")))


def read_prompt(row: Row, layout: Layout) -> Dialogue | Refusal:
    """The messages of the prompt alone; none where the row has no such column, as in TRL's pairs of whole conversations."""
    column = layout.column("prompt")
    if column is None or (layout.kind == "preference" and row.values.get(column) is None):
        return Dialogue([], tools(row, layout.column("tools")))
    prompt = one_side(row, column, "user", layout)
    if isinstance(prompt, Refusal):
        return prompt
    return Dialogue(with_system(prompt, row, layout), tools(row, layout.column("tools")))


def one_side(row: Row, column: str, role: Role, layout: Layout) -> list[Message] | Refusal:
    """The messages of a column that holds a text, said by `role`, or a list of messages."""
    if column not in row.values:
        raise missing_column(row, column)
    value = row.values[column]
    if isinstance(value, list):
        return message_list(value, column, layout, row.origin)
    return [Message(role, text(value, column, row.origin))]

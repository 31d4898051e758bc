"""Prompts that an online method answers itself."""

from __future__ import annotations

from tunewright.data.formats.fields import Converted, Dialogue, Outcome, Refusal
from tunewright.data.formats.layout import Layout
from tunewright.data.formats.turns import OUT_OF_ORDER, order_problem
from tunewright.data.json_rows import Row
from tunewright.data.records import Message, Prompt

_ANSWER = Message("assistant", "")


def prompt(row: Row, layout: Layout, dialogue: Dialogue) -> Outcome:
    """The turns up to the last question or result; an answer that follows is left out, as the method writes its own."""
    messages = dialogue.messages
    size = len(messages)
    while size and messages[size - 1].role == "assistant":
        size -= 1
    problem = order_problem([*messages[:size], _ANSWER], layout.quirks)
    if problem is not None:
        return Refusal(OUT_OF_ORDER, problem)
    return Converted(Prompt(tuple(messages[:size]), row.origin, dialogue.tools), dialogue.changes)

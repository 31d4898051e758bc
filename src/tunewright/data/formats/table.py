"""Firefly's tables: columns human and assistant (category and others are not read), or a list of such pairs."""

from __future__ import annotations

from tunewright.data.formats.fields import Dialogue, Refusal, mapping, required_list, required_text, text
from tunewright.data.formats.layout import Layout
from tunewright.data.formats.messages import with_system
from tunewright.data.json_rows import Row
from tunewright.data.records import Message

PAIRS = "conversation"
"""Column that holds a list of `{"human": ..., "assistant": ...}` in Firefly's JSONL files."""


def read(row: Row, layout: Layout) -> Dialogue | Refusal:
    """One question and answer, or the pairs of the column `conversation`."""
    human, assistant = layout.columns["prompt"], layout.columns["response"]
    messages: list[Message] = []
    if PAIRS in row.values and human not in row.values:
        for position, entry in enumerate(required_list(row, PAIRS)):
            key = f"{PAIRS}[{position}]"
            pair = mapping(entry, key, row.origin)
            messages += [Message("user", text(pair.get(human), f"{key}.{human}", row.origin)),
                         Message("assistant", text(pair.get(assistant), f"{key}.{assistant}", row.origin))]
    else:
        messages += [Message("user", required_text(row, human)), Message("assistant", required_text(row, assistant))]
    return Dialogue(with_system(messages, row, layout))

"""Firefly's tables: columns human and assistant (category and others are not read), or a list of such pairs."""

from __future__ import annotations

from tunewright.data.formats.fields import Outcome, mapping, optional_text, required_list, required_text, text
from tunewright.data.formats.layout import Layout
from tunewright.data.formats.turns import conversation
from tunewright.data.json_rows import Row
from tunewright.data.records import Message

PAIRS = "conversation"
"""Column that holds a list of `{"human": ..., "assistant": ...}` in Firefly's JSONL files."""


def convert(row: Row, layout: Layout) -> Outcome:
    """One question and answer, or the pairs of the column `conversation`."""
    human, assistant = layout.columns["prompt"], layout.columns["response"]
    system = optional_text(row, layout.column("system"))
    messages = [Message("system", system)] if system else []
    if PAIRS in row.values and human not in row.values:
        for position, entry in enumerate(required_list(row, PAIRS)):
            key = f"{PAIRS}[{position}]"
            pair = mapping(entry, key, row.origin)
            messages += [Message("user", text(pair.get(human), f"{key}.{human}", row.origin)),
                         Message("assistant", text(pair.get(assistant), f"{key}.{assistant}", row.origin))]
    else:
        messages += [Message("user", required_text(row, human)), Message("assistant", required_text(row, assistant))]
    return conversation(messages, row.origin)

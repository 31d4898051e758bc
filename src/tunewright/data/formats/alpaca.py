"""Alpaca: instruction, input, output, and optionally system, history and tools. Also question and answer columns by name."""

from __future__ import annotations

from typing import Any

from tunewright.data.formats.fields import Outcome, listed, optional_text, required_text, text, tools
from tunewright.data.formats.layout import Layout
from tunewright.data.formats.turns import conversation
from tunewright.data.json_rows import Row
from tunewright.data.records import Message, Origin
from tunewright.errors import InputError


def convert(row: Row, layout: Layout) -> Outcome:
    """System prompt, the pairs of the history, then prompt and query (joined by a line break) with the response.

    The answers of the history are trained too, as LLaMA-Factory does; `mask_history` leaves them out.
    """
    prompt = required_text(row, layout.columns["prompt"])
    query = optional_text(row, layout.column("query"))
    response = required_text(row, layout.columns["response"])
    system = optional_text(row, layout.column("system"))
    messages = [Message("system", system)] if system else []
    messages += _history(row, layout.column("history"))
    messages += [Message("user", "\n".join(part for part in (prompt, query) if part)), Message("assistant", response)]
    return conversation(messages, row.origin, tools(row, layout.column("tools")))


def _history(row: Row, column: str | None) -> list[Message]:
    value = row.values.get(column) if column is not None else None
    if value is None or column is None:
        return []
    messages = []
    for position, pair in enumerate(listed(value, column, row.origin)):
        question, answer = _pair(pair, f"{column}[{position}]", row.origin)
        messages += [Message("user", question), Message("assistant", answer)]
    return messages


def _pair(value: Any, key: str, origin: Origin) -> tuple[str, str]:
    pair = listed(value, key, origin)
    if len(pair) != 2:
        raise InputError(f"{key}: a pair of question and answer wanted, found {len(pair)} entries", where=str(origin))
    return text(pair[0], f"{key}[0]", origin), text(pair[1], f"{key}[1]", origin)

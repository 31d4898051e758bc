"""Alpaca: instruction, input, output, and optionally system, history and tools. Also question and answer columns by name."""

from __future__ import annotations

from typing import Any

from tunewright.data.formats.fields import MEND, Dialogue, Refusal, listed, optional_text, required_text, text, tools
from tunewright.data.formats.layout import Layout
from tunewright.data.formats.turns import NO_ANSWER
from tunewright.data.json_rows import Row
from tunewright.data.records import Message, Origin
from tunewright.errors import InputError


def read(row: Row, layout: Layout) -> Dialogue | Refusal:
    """System prompt, the pairs of the history, then prompt and query (joined by a line break), with the response unless answers are paired.

    The answers of the history are trained too, as LLaMA-Factory does; `mask_history` leaves them out.
    """
    columns = layout.columns
    prompt = required_text(row, columns["prompt"]) if "prompt" in columns else ""
    query = optional_text(row, columns.get("query"))
    system = optional_text(row, columns.get("system"))
    messages = [Message("system", system)] if system else []
    messages += _history(row, layout)
    messages.append(Message("user", f"{prompt}\n{query}" if prompt and query else prompt or query))
    if "response" in columns:
        answer = _answer(row, columns["response"], layout)
        if isinstance(answer, Refusal):
            return answer
        messages.append(Message("assistant", answer))
    elif layout.kind in ("conversation", "feedback"):
        return Refusal(NO_ANSWER, "columns names no response")
    return Dialogue(messages, tools(row, columns.get("tools")))


def _answer(row: Row, column: str, layout: Layout) -> str | Refusal:
    if layout.quirks and "answer-not-text-dropped" in layout.quirks and not isinstance(row.values.get(column), str):
        return Refusal(NO_ANSWER, f"{column} is not text")
    return required_text(row, column)


def _history(row: Row, layout: Layout) -> list[Message]:
    column = layout.columns.get("history")
    value = row.values.get(column) if column is not None else None
    if value is None or column is None:
        return []
    if layout.quirks and "history-not-list-ignored" in layout.quirks and not isinstance(value, list):
        return []
    messages = []
    for position, pair in enumerate(listed(value, column, row.origin)):
        question, answer = _pair(pair, f"{column}[{position}]", row.origin)
        messages += [Message("user", question), Message("assistant", answer)]
    return messages


def _pair(value: Any, key: str, origin: Origin) -> tuple[str, str]:
    pair = listed(value, key, origin)
    if len(pair) != 2:
        raise InputError(f"{key}: a pair of question and answer wanted, found {len(pair)} entries", where=str(origin), mend=MEND)
    return text(pair[0], f"{key}[0]", origin), text(pair[1], f"{key}[1]", origin)

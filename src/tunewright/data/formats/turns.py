"""What every conversation must satisfy, whatever format it came in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunewright.data.formats.fields import Converted, Outcome, Refusal
from tunewright.data.records import Conversation, Message, Origin

OUT_OF_ORDER = "turns out of order"
UNKNOWN_ROLE = "unknown role"
NO_TRAINED_TOKEN = "no trainable token"

_MAY_FOLLOW = {
    None: ("user",), "user": ("assistant",), "assistant": ("user", "tool"), "tool": ("assistant", "tool"),
}


def conversation(messages: Sequence[Message], origin: Origin, tools: tuple[Mapping[str, Any], ...] = ()) -> Outcome:
    """A conversation, or the reason to leave it out.

    A system message comes first or not at all; then user and assistant alternate, tool results following the assistant; the
    last turn is the assistant's. An answer without any text or call is not trained: its only token would be the end of turn.
    """
    problem = _order_problem(messages)
    if problem is not None:
        return Refusal(OUT_OF_ORDER, problem)
    kept, changes = _without_empty_answers(messages)
    if not any(message.role == "assistant" and message.trained for message in kept):
        return Refusal(NO_TRAINED_TOKEN, "every answer is empty or has weight 0")
    return Converted(Conversation(kept, origin, tools), changes)


def _order_problem(messages: Sequence[Message]) -> str | None:
    turns = messages[1:] if messages and messages[0].role == "system" else messages
    before = None
    for number, message in enumerate(turns, start=1 + len(messages) - len(turns)):
        if message.role not in _MAY_FOLLOW[before]:
            return f"turn {number} is {message.role} {f'after {before}' if before else 'but user comes first'}"
        before = message.role
    if before != "assistant":
        return f"the last turn is {before}: no answer follows" if before else "there are no turns"
    return None


def _without_empty_answers(messages: Sequence[Message]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    kept, changes = [], []
    for number, message in enumerate(messages, start=1):
        empty = message.role == "assistant" and not message.content.strip() and not message.tool_calls
        if empty and message.trained:
            changes.append(f"turn {number} is an empty answer: not trained")
        kept.append(replace(message, trained=False) if empty else message)
    return tuple(kept), tuple(changes)

"""What every conversation must satisfy, whatever format it came in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunewright.data.formats.fields import Converted, Dialogue, Outcome, Refusal
from tunewright.data.formats.layout import Layout
from tunewright.data.json_rows import Row
from tunewright.data.quirks import STRICT, Quirks
from tunewright.data.records import Conversation, Message

OUT_OF_ORDER = "turns out of order"
UNKNOWN_ROLE = "unknown role"
NO_TRAINED_TOKEN = "no trainable token"
NO_ANSWER = "no answer"

_MAY_FOLLOW = {
    None: ("user",), "user": ("assistant",), "assistant": ("user", "tool"), "tool": ("assistant", "tool"),
}


def conversation(row: Row, layout: Layout, dialogue: Dialogue) -> Outcome:
    """A conversation, or the reason to leave it out.

    A system message comes first or not at all; then user and assistant alternate, tool results following the assistant; the
    last turn is the assistant's. An answer without any text or call is not trained: its only token would be the end of turn.
    """
    messages = dialogue.messages
    problem = order_problem(messages, layout.quirks)
    if problem is not None:
        return Refusal(OUT_OF_ORDER, problem)
    if layout.quirks and "empty-answer-trained" in layout.quirks:
        kept, changes = tuple(messages), dialogue.changes
    else:
        kept, changes = _without_empty_answers(messages, dialogue.changes)
    if not any(message.role == "assistant" and message.trained for message in kept):
        return Refusal(NO_TRAINED_TOKEN, "every answer is empty or has weight 0")
    return Converted(Conversation(kept, row.origin, dialogue.tools), changes)


def order_problem(messages: Sequence[Message], quirks: Quirks = STRICT) -> str | None:
    """What is wrong with the order of the turns of a conversation that ends with an answer, or None."""
    begin = 1 if messages and messages[0].role == "system" else 0
    if quirks and "turns-by-parity" in quirks:
        return _parity_problem(messages[begin:], begin)
    before = None
    for number in range(begin, len(messages)):
        role = messages[number].role
        if role not in _MAY_FOLLOW[before]:
            return f"turn {number + 1} is {role} {f'after {before}' if before else 'but user comes first'}"
        before = role
    if before != "assistant":
        return f"the last turn is {before}: no answer follows" if before else "there are no turns"
    return None


def _parity_problem(turns: Sequence[Message], begin: int) -> str | None:
    for number, message in enumerate(turns):
        if message.role not in (("user", "tool"), ("assistant",))[number % 2]:
            return f"turn {number + begin + 1} is {message.role}"
    if not turns:
        return "there are no turns"
    return None if len(turns) % 2 == 0 else f"the last turn is {turns[-1].role}: no answer follows"


def _without_empty_answers(messages: Sequence[Message], before: tuple[str, ...]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    if all(message.content.strip() or message.role != "assistant" or message.tool_calls for message in messages):
        return tuple(messages), before
    kept, changes = [], list(before)
    for number, message in enumerate(messages, start=1):
        empty = message.role == "assistant" and not message.content.strip() and not message.tool_calls
        if empty and message.trained:
            changes.append(f"turn {number} is an empty answer: not trained")
        kept.append(replace(message, trained=False) if empty else message)
    return tuple(kept), tuple(changes)

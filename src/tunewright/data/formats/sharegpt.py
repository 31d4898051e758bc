"""ShareGPT: a list of turns with a role tag and a text, `{"from": "human", "value": "..."}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunewright.data.formats.fields import MEND, Refusal, calls_in, flag, mapping, text
from tunewright.data.formats.layout import Layout
from tunewright.data.formats.turns import UNKNOWN_ROLE
from tunewright.data.records import Message, Origin
from tunewright.errors import InputError


def message_list(entries: list[Any], column: str, layout: Layout, origin: Origin) -> list[Message] | Refusal:
    """Turns with the tags of `layout`; `column` is the key that errors name.

    A function turn becomes the assistant's call, an observation turn its result. `loss` or `weight` 0 keeps an answer as context.
    """
    roles, role_tag, content_tag = layout.roles, layout.tags["role_tag"], layout.tags["content_tag"]
    messages = []
    for position, entry in enumerate(entries):
        key = f"{column}[{position}]"
        turn = mapping(entry, key, origin)
        tag = _field(turn, role_tag, key, origin)
        role = roles.get(tag)
        if role is None:
            return Refusal(UNKNOWN_ROLE, f"turn {position + 1} is `{tag}`; known: {', '.join(roles)}")
        content = _field(turn, content_tag, key, origin)
        messages.append(_message(role, content, f"{key}.{content_tag}", origin, flag(turn, key, origin)))
    return messages


def _field(turn: Mapping[str, Any], name: str, key: str, origin: Origin) -> str:
    if name not in turn:
        raise InputError(f"{key}.{name}: missing; keys present: {', '.join(map(str, turn)) or 'none'}",
                         where=str(origin), mend=MEND)
    return text(turn[name], f"{key}.{name}", origin)


def _message(role: str, content: str, key: str, origin: Origin, trained: bool) -> Message:
    if role == "user":
        return Message("user", content)
    if role == "assistant":
        return Message("assistant", content, trained)
    if role == "call":
        return Message("assistant", "", trained, tool_calls=calls_in(content, key, origin))
    return Message("tool" if role == "tool" else "system", content)

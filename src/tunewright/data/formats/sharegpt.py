"""ShareGPT: a list of turns with a role tag and a text, `{"from": "human", "value": "..."}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunewright.data.formats.fields import Outcome, Refusal, mapping, optional_text, parsed, required_list, text, tool_call, tools
from tunewright.data.formats.layout import Layout
from tunewright.data.formats.turns import UNKNOWN_ROLE, conversation
from tunewright.data.json_rows import Row
from tunewright.data.records import Message, Origin
from tunewright.errors import InputError


def convert(row: Row, layout: Layout) -> Outcome:
    """Turns with the tags of `layout`. A first turn with the system tag wins over the system column.

    A function turn becomes the assistant's call, an observation turn its result.
    """
    column = layout.columns["messages"]
    roles = _roles(layout.tags)
    messages = []
    for position, entry in enumerate(required_list(row, column)):
        key = f"{column}[{position}]"
        turn = mapping(entry, key, row.origin)
        tag = _field(turn, layout.tags["role_tag"], key, row.origin)
        if tag not in roles:
            return Refusal(UNKNOWN_ROLE, f"turn {position + 1} is `{tag}`; known: {', '.join(roles)}")
        content = _field(turn, layout.tags["content_tag"], key, row.origin)
        messages.append(_message(roles[tag], content, f"{key}.{layout.tags['content_tag']}", row.origin))
    system = optional_text(row, layout.column("system"))
    if system and not (messages and messages[0].role == "system"):
        messages.insert(0, Message("system", system))
    return conversation(messages, row.origin, tools(row, layout.column("tools")))


def _roles(tags: Mapping[str, str]) -> dict[str, str]:
    return {tags["user_tag"]: "user", tags["assistant_tag"]: "assistant", tags["system_tag"]: "system",
            tags["observation_tag"]: "tool", tags["function_tag"]: "function"}


def _field(turn: Mapping[str, Any], name: str, key: str, origin: Origin) -> str:
    if name not in turn:
        raise InputError(f"{key}.{name}: missing; keys present: {', '.join(map(str, turn)) or 'none'}",
                         where=str(origin))
    return text(turn[name], f"{key}.{name}", origin)


def _message(role: str, content: str, key: str, origin: Origin) -> Message:
    if role == "user":
        return Message("user", content)
    if role == "assistant":
        return Message("assistant", content)
    if role == "function":
        found = parsed(content, key, origin)
        calls = found if isinstance(found, list) else [found]
        return Message("assistant", "", tool_calls=tuple(tool_call(call, key, origin) for call in calls))
    return Message("tool" if role == "tool" else "system", content)

"""OpenAI chat messages: `{"messages": [{"role": "user", "content": "..."}, ...], "tools": [...]}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunewright.data.formats.fields import (
    Outcome,
    Refusal,
    listed,
    mapping,
    optional_text,
    required_list,
    text,
    tool_call,
    tools,
    wrong_type,
)
from tunewright.data.formats.layout import Layout
from tunewright.data.formats.turns import UNKNOWN_ROLE, conversation
from tunewright.data.json_rows import Row
from tunewright.data.records import Message, Origin, Role, ToolCall
from tunewright.errors import InputError


def convert(row: Row, layout: Layout) -> Outcome:
    """Messages with the tags of `layout`; a first system message wins over the system column.

    Follows OpenAI's fine-tuning files: `weight` 0 keeps an answer as context, `content` may be null beside `tool_calls`,
    arguments are JSON text or an object, `function_call` is the older form of one call, `developer` a name for system.
    """
    column = layout.columns["messages"]
    outcome = message_list(required_list(row, column), column, layout.tags, row.origin)
    if isinstance(outcome, Refusal):
        return outcome
    system = optional_text(row, layout.column("system"))
    if system and not (outcome and outcome[0].role == "system"):
        outcome.insert(0, Message("system", system))
    return conversation(outcome, row.origin, tools(row, layout.column("tools")))


def message_list(entries: list[Any], column: str, tags: Mapping[str, str], origin: Origin) -> list[Message] | Refusal:
    """The messages of `entries`; `column` is the key that errors name."""
    roles = _roles(tags)
    messages = []
    for position, entry in enumerate(entries):
        key = f"{column}[{position}]"
        turn = mapping(entry, key, origin)
        name = text(turn.get(tags["role_tag"]), f"{key}.{tags['role_tag']}", origin)
        if name not in roles:
            return Refusal(UNKNOWN_ROLE, f"turn {position + 1} is `{name}`; known: {', '.join(roles)}")
        messages.append(_message(turn, roles[name], key, tags["content_tag"], origin))
    return messages


def _roles(tags: Mapping[str, str]) -> dict[str, Role]:
    return {tags["user_tag"]: "user", tags["assistant_tag"]: "assistant", tags["system_tag"]: "system",
            "developer": "system",
            tags["observation_tag"]: "tool", tags["function_tag"]: "tool"}


def _message(turn: Mapping[str, Any], role: Role, key: str, content_tag: str, origin: Origin) -> Message:
    calls = _calls(turn, key, origin) if role == "assistant" else ()
    content = _content(turn.get(content_tag), f"{key}.{content_tag}", origin, may_be_null=bool(calls))
    if role != "assistant":
        return Message(role, content)
    reasoning = turn.get("reasoning_content")
    return Message(
        role, content, trained=_weight(turn, key, origin), tool_calls=calls,
        reasoning=None if reasoning is None else text(reasoning, f"{key}.reasoning_content", origin))


def _calls(turn: Mapping[str, Any], key: str, origin: Origin) -> tuple[ToolCall, ...]:
    if turn.get("function_call") is not None:
        return (tool_call(turn["function_call"], f"{key}.function_call", origin),)
    value = turn.get("tool_calls")
    entries = [] if value is None else listed(value, f"{key}.tool_calls", origin)
    return tuple(_wrapped_call(entry, f"{key}.tool_calls[{position}]", origin) for position,
                 entry in enumerate(entries))


def _wrapped_call(value: Any, key: str, origin: Origin) -> ToolCall:
    entry = mapping(value, key, origin)
    return tool_call(entry["function"], f"{key}.function", origin) if "function" in entry else tool_call(entry, key,
        origin)


def _content(value: Any, key: str, origin: Origin, *, may_be_null: bool) -> str:
    """The text of a message; parts `{"type": "text", "text": ...}` are put together."""
    if value is None and may_be_null:
        return ""
    if isinstance(value, list):
        return "".join(_part(part, f"{key}[{position}]", origin) for position, part in enumerate(value))
    if not isinstance(value, str):
        wrong_type(key, "string", value, origin)
    return value


def _part(value: Any, key: str, origin: Origin) -> str:
    part = mapping(value, key, origin)
    if part.get("type") != "text":
        raise InputError(f"{key}.type: only text parts can be trained, found {part.get('type')!r}", where=str(origin))
    return text(part.get("text"), f"{key}.text", origin)


def _weight(turn: Mapping[str, Any], key: str, origin: Origin) -> bool:
    weight = turn.get("weight", 1)
    if weight is None:
        return True
    if isinstance(weight, bool) or weight not in (0, 1):
        wrong_type(f"{key}.weight", "0 or 1", weight, origin)
    return bool(weight)

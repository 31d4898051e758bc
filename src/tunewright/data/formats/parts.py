"""Messages in parts, LLaMA-Factory's second form: `{"role", "content": [{"type": "text", "value": "..."}], "loss_weight": 1.0}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunewright.data.formats.fields import MEND, Refusal, calls_in, listed, mapping, text, wrong_type
from tunewright.data.formats.layout import Layout
from tunewright.data.formats.turns import UNKNOWN_ROLE
from tunewright.data.records import Message, Origin, Role, ToolCall
from tunewright.errors import InputError

_ROLES: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_TEXTS = ("text", "tool_result")


def message_list(entries: list[Any], column: str, layout: Layout, origin: Origin) -> list[Message] | Refusal:
    """The messages of `entries`, each of parts `text`, `reasoning`, `tool_call` and `tool_result`; `loss_weight` 0 keeps an answer as
    context."""
    messages = []
    for position, entry in enumerate(entries):
        key = f"{column}[{position}]"
        turn = mapping(entry, key, origin)
        name = text(turn.get("role"), f"{key}.role", origin)
        if name not in _ROLES:
            return Refusal(UNKNOWN_ROLE, f"turn {position + 1} is `{name}`; known: {', '.join(_ROLES)}")
        messages.append(_message(turn, _ROLES[name], key, origin))
    return messages


def _message(turn: Mapping[str, Any], role: Role, key: str, origin: Origin) -> Message:
    content: list[str] = []
    reasoning: list[str] = []
    calls: list[ToolCall] = []
    for position, value in enumerate(listed(turn.get("content"), f"{key}.content", origin)):
        place = f"{key}.content[{position}]"
        part = mapping(value, place, origin)
        kind = part.get("type")
        said = text(part.get("value"), f"{place}.value", origin) if kind in (*_TEXTS, "reasoning", "tool_call") else ""
        if kind in _TEXTS:
            content.append(said)
        elif kind == "reasoning" and role == "assistant":
            reasoning.append(said)
        elif kind == "tool_call" and role == "assistant":
            calls += calls_in(said, f"{place}.value", origin)
        else:
            raise InputError(f"{place}.type: no part that the {role} can say in training, found {kind!r}", where=str(origin), mend=MEND)
    return Message(role, "".join(content), role != "assistant" or _weight(turn, key, origin), "".join(reasoning) or None, tuple(calls))


def _weight(turn: Mapping[str, Any], key: str, origin: Origin) -> bool:
    value = turn.get("loss_weight")
    if value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float) or value not in (0, 1):
        wrong_type(f"{key}.loss_weight", "0 or 1", value, origin)
    return bool(value)

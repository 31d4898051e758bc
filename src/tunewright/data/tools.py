"""Turns as the objects that chat templates read, tool calls included. Standard library only."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from tunewright.data.records import Message, ToolCall

TemplateMessage = dict[str, Any]

_NINE: Final = re.compile("[A-Za-z0-9]{9}")


def template_messages(messages: Sequence[Message], *, arguments_as_text: bool = False, nine_characters: bool = False,
                      thought_keys: Sequence[str] = ("reasoning_content",)) -> list[TemplateMessage]:
    """Messages in the form of the OpenAI chat API, with the identifiers of `with_identifiers`.

    `arguments_as_text` writes arguments as JSON text. A thought stands under each of `thought_keys`.
    """
    turns: list[TemplateMessage] = []
    for message in with_identifiers(messages, nine_characters=nine_characters):
        turn: TemplateMessage = {"role": message.role, "content": message.content}
        if message.reasoning is not None:
            turn |= dict.fromkeys(thought_keys, message.reasoning)
        if message.tool_calls:
            turn["tool_calls"] = [_call(call, arguments_as_text) for call in message.tool_calls]
        if message.name is not None:
            turn["name"] = message.name
        if message.role == "tool" and message.call_id is not None:
            turn["tool_call_id"] = message.call_id
        turns.append(turn)
    return turns


def with_identifiers(messages: Sequence[Message], *, nine_characters: bool = False) -> Sequence[Message]:
    """The messages, every call with an identifier, and every result with that of its call and the name of its tool.

    Calls keep the identifiers of the row if it gives one to each, and, where `nine_characters` wants nine letters and digits, they are
    such; otherwise they are `call00000`, `call00001`, ... in order. A result answers the call that it names; one that names none the
    earliest that is still open. What the row itself says of a result stays.
    """
    own = [call.id for message in messages for call in message.tool_calls]
    if not own:
        return messages
    is_own = all(one and (not nine_characters or _NINE.fullmatch(one)) for one in own)
    identifiers = iter([one or "" for one in own] if is_own else [f"call{number:05d}" for number in range(len(own))])
    found: list[Message] = []
    open_calls: list[tuple[str | None, ToolCall]] = []
    for message in messages:
        if message.tool_calls:
            open_calls = [(call.id, replace(call, id=next(identifiers))) for call in message.tool_calls]
            message = replace(message, tool_calls=tuple(call for _, call in open_calls))
        elif message.role == "tool" and open_calls:
            message = _answering(message, open_calls, is_own)
        found.append(message)
    return found


def _answering(message: Message, open_calls: list[tuple[str | None, ToolCall]], is_own: bool) -> Message:
    """A result with identifier and name; its call is then no longer open."""
    number = next((number for number, (own, _) in enumerate(open_calls) if message.call_id and own == message.call_id), None)
    if number is None and message.call_id and is_own:  # it names a call that the row does not have
        return replace(message, name=message.name or open_calls[0][1].name)
    _, call = open_calls.pop(number or 0)
    return replace(message, name=message.name or call.name, call_id=call.id)


def template_tools(tools: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Definitions in the form of the OpenAI chat API: a bare function gets its `{"type": "function", ...}` around it."""
    return [tool if "function" in tool or "name" not in tool else {"type": "function", "function": tool} for tool in tools]


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with every string in it, keys included, changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): map_strings(inner, change) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [map_strings(inner, change) for inner in value]
    return value


def _call(call: ToolCall, arguments_as_text: bool) -> TemplateMessage:
    arguments: Any = dict(call.arguments)
    if arguments_as_text:
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}

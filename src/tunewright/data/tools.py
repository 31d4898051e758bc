"""Turns as the objects that chat templates read, tool calls included. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunewright.data.records import Message, ToolCall

TemplateMessage = dict[str, Any]


def template_messages(messages: Sequence[Message], *, arguments_as_text: bool = False) -> list[TemplateMessage]:
    """Messages in the form of the OpenAI chat API.

    Calls get identifiers `call00000`, `call00001`, ... in order (nine characters, as Mistral's templates insist), and
    each tool turn answers the earliest call that is still open. `arguments_as_text` writes arguments as JSON text.
    """
    open_calls: list[tuple[str, str]] = []
    made = 0
    turns: list[TemplateMessage] = []
    for message in messages:
        turn: TemplateMessage = {"role": message.role, "content": message.content}
        if message.reasoning is not None:
            turn["reasoning_content"] = message.reasoning
        if message.tool_calls:
            names = [f"call{made + number:05d}" for number in range(len(message.tool_calls))]
            made += len(names)
            open_calls = [(name, call.name) for name, call in zip(names, message.tool_calls, strict=True)]
            turn["tool_calls"] = [_call(name, call, arguments_as_text)
                                  for name, call in zip(names, message.tool_calls, strict=True)]
        if message.role == "tool" and open_calls:
            turn["tool_call_id"], turn["name"] = open_calls.pop(0)
        turns.append(turn)
    return turns


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


def _call(identifier: str, call: ToolCall, arguments_as_text: bool) -> TemplateMessage:
    arguments: Any = dict(call.arguments)
    if arguments_as_text:
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {"id": identifier, "type": "function", "function": {"name": call.name, "arguments": arguments}}

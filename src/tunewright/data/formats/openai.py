"""OpenAI chat messages: `{"messages": [{"role": "user", "content": "..."}, ...], "tools": [...]}`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from tunewright.data.formats.fields import (
    MEND,
    Dialogue,
    Refusal,
    calls_in,
    flag,
    listed,
    mapping,
    parsed,
    text,
    tool_call,
    wrong_type,
)
from tunewright.data.formats.layout import Layout
from tunewright.data.formats.turns import UNKNOWN_ROLE
from tunewright.data.quirks import Quirks
from tunewright.data.records import Message, Origin, ToolCall
from tunewright.errors import InputError

REASONING = ("reasoning_content", "reasoning", "thinking")
"""What servers and data sets call the thought before an answer; the first that a message has is read."""
KEYS = frozenset({"name", "tool_calls", "function_call", "tool_call_id", "weight", "loss", "refusal", *REASONING})
"""Keys of a message that are read beside its role and content."""

_ANTHROPIC: Final[Mapping[str, str]] = {
    "tool_use": "write Anthropic's calls as OpenAI's: tool_calls of the message",
    "tool_result": "write Anthropic's results as OpenAI's: messages of role tool, with tool_call_id",
    "thinking": "write the thought as reasoning_content of the message",
    "redacted_thinking": "take it out: it is encrypted",
}
"""Parts that Anthropic's messages have besides text -> how to write them."""

_SENTENCE = "detailed thinking off"
_JOINT = "\n</tool_response>\n<tool_response>\n"


def message_list(entries: list[Any], column: str, layout: Layout, origin: Origin) -> list[Message] | Refusal:
    """The messages of `entries`; `column` is the key that errors name.

    Follows OpenAI's fine-tuning files: `weight` 0 (ms-swift's `loss` false) keeps an answer as context, `content` may be null or absent
    beside calls, arguments are JSON text or an object, `function_call` is the older form of one call and the role `function` of its
    result, `developer` a name for system. `tool_call` and `tool_response` are ms-swift's roles of a call and its result.
    """
    roles = layout.roles
    role_tag, content_tag = layout.tags["role_tag"], layout.tags["content_tag"]
    messages = []
    for position, entry in enumerate(entries):
        key = f"{column}[{position}]"
        turn = mapping(entry, key, origin)
        name = text(turn.get(role_tag), f"{key}.{role_tag}", origin)
        role = roles.get(name)
        if role is None:
            return Refusal(UNKNOWN_ROLE, f"turn {position + 1} is `{name}`; known: {', '.join(roles)}")
        messages.append(_message(turn, role, key, content_tag, origin))
    return messages


def as_llamafactory(dialogue: Dialogue, quirks: Quirks) -> Dialogue:
    """The dialogue with LLaMA-Factory's changes to results of tools and to system prompts."""
    messages, changes = dialogue.messages, []
    if "trailing-tool-dropped" in quirks and messages and messages[-1].role == "tool":
        kept = len(messages) - next((at for at, message in enumerate(reversed(messages)) if message.role != "tool"), len(messages))
        changes.append(f"the results after turn {kept} are cut off")
        messages = messages[:kept]
    if "openai-tool-join" in quirks:
        joined = _with_joined_results(messages)
        changes += [f"{len(messages) - len(joined)} results of tools joined to those before them"] if len(joined) < len(messages) else []
        messages = joined
    if "openai-thinking-sentence" in quirks:
        thinking = _with_sentence(messages, bool(dialogue.tools))
        changes += ["the system prompt has a sentence on thinking"] if thinking != messages else []
        messages = thinking
    return Dialogue(messages, dialogue.tools, (*dialogue.changes, *changes))


def _with_joined_results(messages: list[Message]) -> list[Message]:
    joined: list[Message] = []
    for message in messages:
        if message.role == "tool" and joined and joined[-1].role == "tool":
            joined[-1] = replace(joined[-1], content=joined[-1].content + _JOINT + message.content)
        else:
            joined.append(message)
    return joined


def _with_sentence(messages: list[Message], has_tools: bool) -> list[Message]:
    system = messages[0] if messages and messages[0].role == "system" and messages[0].content else None
    if system is None:
        return messages if has_tools else [Message("system", _SENTENCE), *messages[bool(messages and messages[0].role == "system"):]]
    if has_tools:
        return [replace(system, content=system.content + "\n"), *messages[1:]]
    if "detailed thinking on" in system.content or _SENTENCE in system.content:
        return messages
    return [replace(system, content=f"{system.content}\n{_SENTENCE}"), *messages[1:]]


def _message(turn: Mapping[str, Any], role: str, key: str, content_tag: str, origin: Origin) -> Message:
    if role in ("assistant", "call"):
        return _answer(turn, role, key, content_tag, origin)
    content = _content(turn.get(content_tag), f"{key}.{content_tag}", origin)
    name = _optional(turn, "name", key, origin)
    if role == "tool":
        return Message("tool", content, name=name, call_id=_optional(turn, "tool_call_id", key, origin))
    return Message("user" if role == "user" else "system", content, name=name)


def _answer(turn: Mapping[str, Any], role: str, key: str, content_tag: str, origin: Origin) -> Message:
    calls = _calls(turn, key, origin)
    given = turn.get(content_tag)
    if role == "call" and not calls:
        calls, given = calls_in(_content(given, f"{key}.{content_tag}", origin), f"{key}.{content_tag}", origin), None
    elif given is None and turn.get("refusal") is not None:
        given = turn["refusal"]
    content = "" if given is None and calls else _content(given, f"{key}.{content_tag}", origin)
    return Message("assistant", content, trained=flag(turn, key, origin), tool_calls=calls, reasoning=_thought(turn, key, origin),
                   name=_optional(turn, "name", key, origin))


def _thought(turn: Mapping[str, Any], key: str, origin: Origin) -> str | None:
    return next((thought for name in REASONING if (thought := _optional(turn, name, key, origin)) is not None), None)


def _optional(turn: Mapping[str, Any], name: str, key: str, origin: Origin) -> str | None:
    value = turn.get(name)
    return None if value is None else text(value, f"{key}.{name}", origin)


def _calls(turn: Mapping[str, Any], key: str, origin: Origin) -> tuple[ToolCall, ...]:
    if turn.get("function_call") is not None:
        return (tool_call(turn["function_call"], f"{key}.function_call", origin),)
    value = turn.get("tool_calls")
    if value is None:
        return ()
    if isinstance(value, str):
        value = parsed(value, f"{key}.tool_calls", origin)
    return tuple(_wrapped_call(entry, f"{key}.tool_calls[{position}]", origin) for position, entry in
                 enumerate(listed(value, f"{key}.tool_calls", origin)))


def _wrapped_call(value: Any, key: str, origin: Origin) -> ToolCall:
    entry = mapping(value, key, origin)
    if "function" not in entry:
        return tool_call(entry, key, origin)
    call = tool_call(entry["function"], f"{key}.function", origin)
    name = _optional(entry, "id", key, origin)
    return call if name is None else replace(call, id=name)


def _content(value: Any, key: str, origin: Origin) -> str:
    """The text of a message; parts `{"type": "text", "text": ...}` are put together."""
    if isinstance(value, list):
        return "".join(_part(part, f"{key}[{position}]", origin) for position, part in enumerate(value))
    if not isinstance(value, str):
        wrong_type(key, "string", value, origin)
    return value


def _part(value: Any, key: str, origin: Origin) -> str:
    part = mapping(value, key, origin)
    if part.get("type") not in ("text", "refusal"):
        raise InputError(f"{key}.type: only text parts can be trained, found {part.get('type')!r}", where=str(origin),
                         mend=_ANTHROPIC.get(str(part.get("type")), MEND))
    return text(part.get(part["type"]), f"{key}.{part['type']}", origin)

"""Where each message's text stands in a render, without searching for it.

The conversation is rendered twice: as it is, and with every character of every message replaced by a private-use character
that belongs to this message alone. Both renders have the same length, the template's own text is the same in both, and
wherever the second has a private-use character, the first has a character of that message. If this does not hold -
the template changed or inspected the text - the places are not known and the caller must refuse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from tunewright.data.records import Message, ToolCall
from tunewright.data.tools import map_strings

Tools = Sequence[Mapping[str, Any]]
Render = Callable[[Sequence[Message], Tools], str]
Part = Literal["content", "reasoning"]

_PLANES = (0xF0000, 0x100000)
_PLANE_SIZE = 0xFFFE
PRIVATE = re.compile("[\U000f0000-\U0010fffd]")
_RUNS = re.compile("([\U000f0000-\U0010fffd])\\1*")
_JSON_ESCAPED = re.compile(r'["\\\x00-\x1f\x7f]')
# Some templates look for these words in a message's text; on a second attempt they are left as they are; on a
# third, what JSON escapes is, for templates that quote a tool's result.
SIGNALS = re.compile(r"</?think>|</?tool_response>|</?tool_call>|/no_think|/think")


class Run(NamedTuple):
    """Characters start:end of a render that come from a message, by its number (-1: from the tool definitions)."""

    start: int
    end: int
    message: int
    part: Part


@dataclass(frozen=True, slots=True)
class Traced:
    """A render and the runs of message text in it, in order. White space around a message's text is in no run."""

    text: str
    runs: tuple[Run, ...]

    def of(self, index: int) -> tuple[Run, ...]:
        """The runs of one message."""
        return tuple(run for run in self.runs if run.message == index)


def trace(render: Render, messages: Sequence[Message], tools: Tools, hidden: re.Pattern[str]) -> Traced | None:
    """Render `messages` and find their texts; None if the template does more with a text than to trim and to place it.

    Names, and strings of tool calls and tool definitions, are traced where they contain `hidden` (control tokens).
    """
    text = render(messages, tools)
    for keep in (None, SIGNALS, _JSON_ESCAPED):
        shade = _Shade(_free_plane(text), hidden, keep)
        shadow = render([shade.message(number, message) for number, message in enumerate(messages)], shade.tools(tools))
        runs = _runs(text, shadow, shade)
        if runs is not None and _faithful(text, runs, messages, keep):
            return Traced(text, runs)
    return None


class _Shade(NamedTuple):
    """Replaces text by private-use characters: two for each message, content and reasoning."""

    plane: int
    hidden: re.Pattern[str]
    keep: re.Pattern[str] | None

    def message(self, number: int, message: Message) -> Message:
        at = self.plane + 2 * (number + 1)
        calls = tuple(self._call(chr(at), call) for call in message.tool_calls)
        reasoning = None if message.reasoning is None else self._prose(chr(at + 1), message.reasoning)
        name, call_id = (None if one is None else self._value(chr(self.plane), one) for one in (message.name, message.call_id))
        return replace(message, content=self._prose(chr(at), message.content), reasoning=reasoning, tool_calls=calls, name=name,
                       call_id=call_id)

    def tools(self, tools: Tools) -> Tools:
        return [map_strings(dict(tool), lambda text: self._value(chr(self.plane), text)) for tool in tools]

    def owner(self, character: str) -> tuple[int, Part]:
        number, reasoning = divmod(ord(character) - self.plane, 2)
        return number - 1, "reasoning" if reasoning else "content"

    def _prose(self, mark: str, text: str) -> str:
        """Everything but the white space around the text, which templates trim."""
        core = text.strip()
        before = len(text) - len(text.lstrip())
        shaded = mark * len(core) if self.keep is None else _shade_between(core, mark, self.keep)
        return text[:before] + shaded + text[before + len(core) :]

    def _call(self, mark: str, call: ToolCall) -> ToolCall:
        return replace(call, name=self._value(mark, call.name), id=None if call.id is None else self._value(mark, call.id),
                       arguments=map_strings(dict(call.arguments), lambda text: self._value(mark, text)))

    def _value(self, mark: str, text: str) -> str:
        """A string in JSON: what JSON escapes stays, so that the length stays."""
        return _shade_between(text, mark, _JSON_ESCAPED) if self.hidden.search(text) else text


def _shade_between(text: str, mark: str, kept: re.Pattern[str]) -> str:
    pieces: list[str] = []
    at = 0
    for match in kept.finditer(text):
        pieces += [mark * (match.start() - at), match.group()]
        at = match.end()
    return "".join([*pieces, mark * (len(text) - at)])


def _free_plane(text: str) -> int:
    """The private plane that the text itself uses less; a clash would show as an unfaithful trace."""
    if not PRIVATE.search(text):
        return _PLANES[0]
    return min(_PLANES, key=lambda plane: sum(plane <= ord(character) < plane + _PLANE_SIZE for character in text))


def _runs(text: str, shadow: str, shade: _Shade) -> tuple[Run, ...] | None:
    if len(text) != len(shadow):
        return None
    runs: list[Run] = []
    at = 0
    for match in _RUNS.finditer(shadow):
        start, end = match.span()
        if not shade.plane <= ord(match.group(1)) < shade.plane + _PLANE_SIZE:
            continue
        if text[at:start] != shadow[at:start]:
            return None
        runs.append(Run(start, end, *shade.owner(match.group(1))))
        at = end
    return tuple(runs) if text[at:] == shadow[at:] else None


def _faithful(text: str, runs: tuple[Run, ...], messages: Sequence[Message], keep: re.Pattern[str] | None) -> bool:
    """Whether the runs hold exactly what the messages say; a turn with tool calls has other runs beside its text."""
    for run in runs:
        if run.message < 0 or messages[run.message].tool_calls:
            continue
        message = messages[run.message]
        said = ((message.reasoning or "") if run.part == "reasoning" else message.content).strip()
        if text[run.start : run.end] not in ([said] if keep is None else keep.split(said)):
            return False
    return True

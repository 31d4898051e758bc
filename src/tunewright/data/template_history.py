"""Thoughts of earlier answers, kept where a template would take them out: LLaMA-Factory's quirk `think-block-in-history`.

Templates of reasoning models look for the words around a thought in earlier answers and leave the thought out. LLaMA-Factory trains on
conversations in which every answer has its own. So that no template finds them, these words are rendered as stand-ins, private characters
as long as they are, and put in again in the render, whose places are therefore those of the stand-ins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from tunewright.data.masks import Rendered
from tunewright.data.records import Message
from tunewright.data.template_table import THINK
from tunewright.data.template_trace import Run
from tunewright.data.template_turns import thought_block
from tunewright.errors import require

_FIRST: Final = 0xF8C0
_MARKS: Final = re.compile("([\uf8c0-\uf8c3])\\1*")


def are_tags(words: tuple[str, str]) -> bool:
    """Whether a thought stands between two tags inside an answer, and not in a turn or channel of its own."""
    return "<|" not in "".join(words)


def with_thoughts(messages: Sequence[Message], words: tuple[str, str]) -> list[Message]:
    """The messages with the thoughts of all answers but the last in their texts, between stand-ins of the words around them.

    A thought in the text stays as it is written there; one that the row has by itself gets `words`. Raises `InputError` for a text that
    holds a stand-in.
    """
    last = len(messages) - 1
    for message in messages:
        require(not _MARKS.search(message.content), "a text holds one of the private characters U+F8C0 to U+F8C3",
                mend="take it out, or take think-block-in-history out of data_compat")
    return [_with_thought(message, words) if message.role == "assistant" and number < last else message
            for number, message in enumerate(messages)]


def restored(rendered: Rendered, words: tuple[str, str]) -> Rendered:
    """The render with the words in the place of their stand-ins. They are the template's: in no run of a message."""
    if not _MARKS.search(rendered.text):
        return rendered
    known = _words(words)
    text = _MARKS.sub(lambda found: known[ord(found[0][0]) - _FIRST], rendered.text)
    return replace(rendered, text=text, runs=tuple(part for run in rendered.runs for part in _parts(run, rendered.text)))


def _with_thought(message: Message, words: tuple[str, str]) -> Message:
    content = message.content
    if message.reasoning is not None:
        if not message.reasoning.strip():
            return message
        content = words[0] + message.reasoning.strip() + words[1] + content
    found = thought_block(words).match(content)
    if found is None:
        return message
    name = next(name for name, thought in found.groupdict().items() if thought is not None)
    begin, end = found.span(name)
    hidden = _hidden(content[:begin], words, 0) + content[begin:end] + _hidden(content[end : found.end()], words, 1)
    return replace(message, reasoning=None, content=hidden + content[found.end() :])


def _words(words: tuple[str, str]) -> tuple[str, ...]:
    return tuple(word.strip() for word in (*THINK, *words))


def _hidden(text: str, words: tuple[str, str], which: int) -> str:
    """`text`, one of the words between white space, with its stand-in."""
    for number in (which, which + 2):
        word = _words(words)[number]
        if word in text:
            return text.replace(word, chr(_FIRST + number) * len(word))
    return text


def _parts(run: Run, text: str) -> Iterator[Run]:
    """A run without the stand-ins in it."""
    at = run.start
    for found in _MARKS.finditer(text, run.start, run.end):
        if at < found.start():
            yield run._replace(start=at, end=found.start())
        at = found.end()
    if at < run.end:
        yield run._replace(start=at)

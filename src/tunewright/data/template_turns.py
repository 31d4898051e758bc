"""Turns as a template takes them: default system prompt, system prompts folded into questions, reasoning in its place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from tunewright.data.records import Message
from tunewright.data.template_profile import Profile

_THINK = ("<think>\n", "\n</think>\n\n")


def prepared(messages: Sequence[Message], profile: Profile, default_system: str | None, thinking: bool | None,
             words: tuple[str, str] = _THINK) -> list[Message]:
    """The turns that a template with this profile renders. `words`: what the template writes around thoughts."""
    turns = list(messages)
    if default_system is not None and turns[0].role != "system":
        turns = [Message("system", default_system), *turns]
    if profile.folds_system:
        turns = folded(turns)
    return [reasoned(turn, thinking, profile.reads_reasoning, words) for turn in turns]


def folded(messages: list[Message]) -> list[Message]:
    """A leading system prompt joined to the first question by an empty line; without a question it is dropped if empty."""
    if messages[0].role != "system" or len(messages) < 2 or messages[1].role != "user":
        return messages
    system, question, *rest = messages
    if not system.content.strip():
        return [question, *rest]
    return [replace(question, content=f"{system.content}\n\n{question.content}"), *rest]


@cache
def thought_block(words: tuple[str, str]) -> re.Pattern[str]:
    """A leading thought: between `<think>` tags, or between the template's own words."""
    own = "|".join(rf"{re.escape(open_.strip())}(?P<{name}>.*?){re.escape(close.strip())}"
                   for name, (open_, close) in {"tags": _THINK, "words": words}.items())
    return re.compile(rf"\s*(?:{own})\s*", re.DOTALL)


def reasoned(message: Message, thinking: bool | None, reads_reasoning: bool, words: tuple[str, str] = _THINK) -> Message:
    """An answer with its reasoning where the template expects it; without it if thinking is off.

    A template that reads `reasoning_content` gets a leading block of thought in the content as reasoning; for any other
    template the reasoning becomes such a block.
    """
    if message.role != "assistant":
        return message
    if reads_reasoning and message.reasoning is None and (block := thought_block(words).match(message.content)):
        thought = next(text for text in block.groups() if text is not None)
        message = replace(message, reasoning=thought.strip("\n"), content=message.content[block.end() :])
    if message.reasoning is None:
        return message
    if thinking is False or not message.reasoning.strip():
        return replace(message, reasoning=None)
    if reads_reasoning:
        return message
    block_text = words[0] + message.reasoning.strip() + words[1]
    return replace(message, reasoning=None, content=block_text + message.content)

"""Pairs of answers, the better one and the worse one, in every form in which data sets have them.

An answer is a text, a message, a list of messages that begins with the assistant, or the whole conversation. Without a prompt of its own
a pair shares one: what both conversations, or both texts, begin with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunewright.data.formats.fields import Converted, Dialogue, Outcome, Refusal, missing_column, wrong_type
from tunewright.data.formats.layout import OPENAI_TAGS, Layout, layout
from tunewright.data.formats.messages import message_list
from tunewright.data.formats.turns import NO_ANSWER, OUT_OF_ORDER, order_problem
from tunewright.data.json_rows import Row
from tunewright.data.records import Message, Origin, Preference

SAME = "chosen and rejected are the same"
NO_PROMPT = "chosen and rejected share no prompt"
_OTHER_FORM = "an answer in the form of the other layout"
_SHAREGPT = layout("sharegpt")

Turns = list[Message]


def preference(row: Row, layout: Layout, dialogue: Dialogue) -> Outcome:
    """The prompt and both answers, or the reason to leave the pair out."""
    found = _pair(row, layout, dialogue.messages)
    if isinstance(found, Refusal):
        return found
    prompt, chosen, rejected, changes = found
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        problem = order_problem([*prompt, *answer], layout.quirks)
        if problem is None and (not answer or not prompt or prompt[-1].role not in ("user", "tool")):
            problem = "the prompt ends with an answer" if prompt and answer else "there is no answer" if prompt else "there is no prompt"
        if problem is not None:
            return Refusal(OUT_OF_ORDER, f"{name}: {problem}")
    if chosen == rejected:
        return Refusal(SAME)
    return Converted(Preference(tuple(prompt), tuple(chosen), tuple(rejected), row.origin, dialogue.tools), (*dialogue.changes, *changes))


def _pair(row: Row, layout: Layout, prompt: Turns) -> tuple[Turns, Turns, Turns, tuple[str, ...]] | Refusal:
    """Prompt, both answers, and what was changed."""
    values = [_value(row, layout, key) for key in ("chosen", "rejected") if key in layout.columns]
    if layout.quirks and "pair-other-form-dropped" in layout.quirks and _is_other_form(values, layout):
        return Refusal(NO_ANSWER, _OTHER_FORM)
    if not prompt and all(isinstance(value, str) for value in values) and len(values) == 2:
        return _from_texts(*values)
    found = []
    for key, value in zip([key for key in ("chosen", "rejected") if key in layout.columns], values, strict=True):
        turns = _turns(value, layout.columns[key], layout, row.origin)
        if isinstance(turns, Refusal):
            return turns
        found.append(turns)
    is_whole = any(isinstance(value, list) and turns and turns[0].role in ("system", "user")
                   for value, turns in zip(values, found, strict=True))
    if len(found) == 1:  # ms-swift: the better answer ends the conversation
        size = len(prompt) - _answer_length(prompt)
        found.insert(0, prompt if is_whole else prompt[size:])
        prompt = prompt[:size]
    chosen, rejected = found
    return _from_conversations(prompt, chosen, rejected) if is_whole else (prompt, chosen, rejected, ())


def _value(row: Row, layout: Layout, key: str) -> Any:
    column = layout.columns[key]
    if column not in row.values:
        raise missing_column(row, column)
    return row.values[column]


def _turns(value: Any, key: str, layout: Layout, origin: Origin) -> Turns | Refusal:
    """The messages of one answer."""
    if isinstance(value, str):
        return [Message("assistant", value)]
    if isinstance(value, Mapping):
        found = message_list([value], key, _form(value, layout), origin)
        if isinstance(found, Refusal) or found[0].role == "assistant" or "ranking-bad-role-kept" not in layout.quirks:
            return found
        return [Message("assistant", found[0].content)]
    if isinstance(value, list):
        return message_list(value, key, _form(value[0] if value else {}, layout), origin)
    wrong_type(key, "string, object or array", value, origin)


def _form(first: Any, layout: Layout) -> Layout:
    """Alpaca has no tags of its own: its answers may be messages of either form."""
    if layout.tags:
        return layout
    return _SHAREGPT if isinstance(first, Mapping) and "from" in first else _OPENAI


def _is_other_form(values: list[Any], layout: Layout) -> bool:
    return any(not isinstance(value, Mapping if layout.tags else str) for value in values)


def _answer_length(turns: Turns) -> int:
    """How many turns at the end belong to the last answer: those after the last question."""
    return next((number for number, turn in enumerate(reversed(turns)) if turn.role == "user"), len(turns))


def _from_conversations(prompt: Turns, chosen: Turns, rejected: Turns) -> tuple[Turns, Turns, Turns, tuple[str, ...]] | Refusal:
    """What both begin with is the prompt, up to its last question or result; a prompt of its own may only repeat a part of it."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    while shared and chosen[shared - 1].role not in ("user", "tool"):
        shared -= 1
    if not shared:
        return Refusal(NO_PROMPT, "they differ from their first turn on")
    said = {(turn.role, turn.content) for turn in chosen[:shared]}
    system = [turn for turn in prompt if turn.role == "system" and chosen[0].role != "system"]
    unread = any((turn.role, turn.content) not in said for turn in prompt if turn not in system)
    changes = ("the prompt is not read: chosen and rejected are whole conversations with another one",) if unread else ()
    return [*system, *chosen[:shared]], chosen[shared:], rejected[shared:], changes


def _from_texts(chosen: str, rejected: str) -> tuple[Turns, Turns, Turns, tuple[str, ...]] | Refusal:
    """What both texts begin with is the prompt, up to a space or line break, so that no word is divided."""
    size = next((at for at, pair in enumerate(zip(chosen, rejected, strict=False)) if pair[0] != pair[1]), min(len(chosen), len(rejected)))
    while size and not chosen[size - 1].isspace():
        size -= 1
    shared = chosen[:size].rstrip()
    if not shared:
        return Refusal(NO_PROMPT, "they differ from their first word on")
    return [Message("user", shared)], [Message("assistant", chosen[size:])], [Message("assistant", rejected[size:])], ()


_OPENAI = layout("openai", tags=OPENAI_TAGS)

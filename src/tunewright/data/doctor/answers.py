"""Checks of questions and answers, whatever their language. Standard library only."""

from __future__ import annotations

from typing import Final

from tunewright.data.doctor.row_checks import RowCheck
from tunewright.data.doctor.seen import Seen

_NOTHING: Final = frozenset(("nan", "none", "null", "n/a", "#n/a", "undefined", "nil", "[deleted]", "[removed]", "todo", "tbd"))
_OPEN, _CLOSE = "<think>", "</think>"


def repeats_the_question(seen: Seen) -> str | None:
    """The answer is the question again."""
    answer = seen.answer
    if answer is None or not seen.prompt or not answer.content.strip():
        return None
    asked = seen.prompt[-1]
    return "" if asked.role == "user" and asked.content.strip().casefold() == answer.content.strip().casefold() else None


def says_nothing(seen: Seen) -> str | None:
    """An answer is a word that programs write where there was no value."""
    for number, answer in seen.answers():
        if len(answer.content) < 20 and answer.content.strip().lower() in _NOTHING:
            return f"turn {number} is `{answer.content.strip()}`"
    return None


def asks_nothing(seen: Seen) -> str | None:
    """A turn of the user is blank."""
    for number, message in enumerate(seen.messages, start=1):
        if message.role == "user" and (not message.content or message.content.isspace()):
            return f"turn {number}"
    return None


def thinks_without_end(seen: Seen) -> str | None:
    """The thinking of an answer begins and does not end, or the other way round."""
    for number, answer in seen.answers():
        text = answer.content
        if (_OPEN in text or _CLOSE in text) and text.count(_OPEN) != text.count(_CLOSE):
            return f"turn {number}: {text.count(_OPEN)} {_OPEN} and {text.count(_CLOSE)} {_CLOSE}"
    return None


CHECKS: Final = (
    RowCheck("empty-question", "warning", "have a blank question", "write the question, or take the rows out", asks_nothing),
    RowCheck("answer-is-question", "warning", "answer with the question itself", "write an answer, or take the rows out",
             repeats_the_question),
    RowCheck("answer-says-nothing", "warning", "have an answer such as `nan`, `None` or `N/A`", "leave such rows out when the file is made",
             says_nothing),
    RowCheck("unfinished-thinking", "warning", "have thinking that does not begin or end", "close it, or take the rows out",
             thinks_without_end),
)

"""Answers that somebody called good or bad, one at a time: a conversation and a column with the mark."""

from __future__ import annotations

from typing import Any, Final

from tunewright.data.formats.fields import Converted, Dialogue, Outcome, Refusal, missing_column, wrong_type
from tunewright.data.formats.layout import Layout
from tunewright.data.formats.turns import OUT_OF_ORDER, order_problem
from tunewright.data.json_rows import Row
from tunewright.data.records import Feedback, Origin

NO_MARK = "no mark"

_MARKS: Final = {"true": True, "false": False, "1": True, "0": False}


def feedback(row: Row, layout: Layout, dialogue: Dialogue) -> Outcome:
    """The conversation with its mark. An empty answer stays: what it trains is to end the turn, or not to."""
    column = layout.columns["kto_tag"]
    if column not in row.values:
        raise missing_column(row, column)
    value = row.values[column]
    if layout.quirks and not isinstance(value, bool) and "kto-tag-not-boolean-dropped" in layout.quirks:
        return Refusal(NO_MARK, f"{column} is not true or false")
    desirable = mark(value, column, row.origin)
    problem = order_problem(dialogue.messages, layout.quirks)
    if problem is not None:
        return Refusal(OUT_OF_ORDER, problem)
    changes = dialogue.changes
    if layout.quirks and "kto-empty-desired" in layout.quirks and desirable and not _says_something(dialogue):
        desirable, changes = False, (*changes, "an empty answer called good counts as bad")
    return Converted(Feedback(tuple(dialogue.messages), desirable, row.origin, dialogue.tools), changes)


def mark(value: Any, key: str, origin: Origin) -> bool:
    """True, False, 1, 0, or one of the texts true, false, 1, 0 in any case; anything else is an error."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in _MARKS:
        return _MARKS[value.strip().lower()]
    wrong_type(key, "true or false", value, origin)


def _says_something(dialogue: Dialogue) -> bool:
    answer = dialogue.messages[-1]
    return bool(answer.content or answer.tool_calls)

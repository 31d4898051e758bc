"""The table of formats: what reads a row of each, and what record each kind of row becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tunewright.data.formats import alpaca, documents, messages, openai_preference, prompt_completion, table, tokens
from tunewright.data.formats.detect import detect as detect
from tunewright.data.formats.feedback import feedback
from tunewright.data.formats.fields import Dialogue, Outcome, Refusal, not_read
from tunewright.data.formats.layout import MEDIA_COLUMNS, Kind, Layout
from tunewright.data.formats.pairs import preference
from tunewright.data.formats.prompts import prompt
from tunewright.data.formats.turns import conversation
from tunewright.data.json_rows import Row

HAS_MEDIA = "pictures, video or sound, of which only the text could be trained"

_READ: Mapping[str, Callable[[Row, Layout], Dialogue | Refusal]] = {
    "alpaca": alpaca.read, "sharegpt": messages.read, "openai": messages.read, "parts": messages.read, "table": table.read,
    "prompt_completion": prompt_completion.read, "preference": prompt_completion.read_prompt,
    "prompt_only": prompt_completion.read_prompt, "openai_preference": openai_preference.read,
}
_BUILD: Mapping[Kind, Callable[[Row, Layout, Dialogue], Outcome]] = {
    "conversation": conversation, "preference": preference, "feedback": feedback, "prompt": prompt,
}
_WHOLE: Mapping[str, Callable[[Row, Layout], Outcome]] = {"text": documents.convert, "tokens": tokens.convert}
"""Formats without turns."""


def convert(row: Row, layout: Layout) -> Outcome:
    """The record of a row, or the reason to leave it out; raises `InputError` for a missing column or a wrong type."""
    found = _converted(row, layout)
    if layout.told is None or row.values.keys() <= layout.told or isinstance(found, Refusal):
        return found
    unread = [name for name, value in row.values.items() if name not in layout.told and value is not None
              and (name not in MEDIA_COLUMNS or value not in ([], ""))]
    media = next((name for name in unread if name in MEDIA_COLUMNS), None)
    if media is not None:
        return Refusal(HAS_MEDIA, f"{media} is not empty")
    return found._replace(changes=(*found.changes, not_read("column", unread))) if unread else found


def _converted(row: Row, layout: Layout) -> Outcome:
    whole = _WHOLE.get(layout.formatting)
    if whole is not None:
        return whole(row, layout)
    dialogue = _READ[layout.formatting](row, layout)
    if isinstance(dialogue, Refusal):
        return dialogue
    return _BUILD[layout.kind](row, layout, dialogue)

"""Documents for pre-training: one text per row."""

from __future__ import annotations

from tunewright.data.formats.fields import Converted, Outcome, Refusal, required_text
from tunewright.data.formats.layout import Layout
from tunewright.data.json_rows import Row
from tunewright.data.records import Text

EMPTY = "empty document"


def convert(row: Row, layout: Layout) -> Outcome:
    """The text of the column, as it is."""
    text = required_text(row, layout.columns["prompt"])
    return Converted(Text(text, row.origin)) if text.strip() else Refusal(EMPTY)

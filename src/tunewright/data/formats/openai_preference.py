"""OpenAI's files for preference tuning: `{"input": {"messages": [...]}, "preferred_output": [...], "non_preferred_output": [...]}`."""

from __future__ import annotations

from collections.abc import Mapping

from tunewright.data.formats.fields import Dialogue, Refusal, listed, missing_column, tools_of
from tunewright.data.formats.layout import Layout
from tunewright.data.formats.messages import message_list
from tunewright.data.json_rows import Row


def read(row: Row, layout: Layout) -> Dialogue | Refusal:
    """The messages and tools of the input; its other keys choose how a request is served and are not read."""
    column = layout.columns["prompt"]
    if column not in row.values:
        raise missing_column(row, column)
    given = row.values[column]
    inner = given if isinstance(given, Mapping) else {"messages": given}
    found = message_list(listed(inner.get("messages"), f"{column}.messages", row.origin), f"{column}.messages", layout, row.origin)
    if isinstance(found, Refusal):
        return found
    tools = inner.get("tools")
    return Dialogue(found, tools_of(tools, f"{column}.tools", row.origin) if tools else ())

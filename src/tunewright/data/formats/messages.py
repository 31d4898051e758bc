"""Lists of messages to turns, in the three forms in which data sets have them, by the format of the layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tunewright.data.formats import openai, parts, sharegpt
from tunewright.data.formats.fields import Dialogue, Refusal, not_read, optional_text, required_list, tools
from tunewright.data.formats.layout import Layout
from tunewright.data.json_rows import Row
from tunewright.data.records import Message, Origin

_KEYS: Mapping[str, frozenset[str]] = {"openai": openai.KEYS, "sharegpt": frozenset({"weight", "loss"}),
                                       "parts": frozenset({"role", "content", "loss_weight"})}
"""Format -> the keys of messages that are read beside role and content."""
_LISTS = {"sharegpt": sharegpt.message_list, "parts": parts.message_list}


def message_list(entries: list[Any], key: str, layout: Layout, origin: Origin) -> list[Message] | Refusal:
    """The messages of `entries`; `key` is the one that errors name."""
    return _LISTS.get(layout.formatting, openai.message_list)(entries, key, layout, origin)


def read(row: Row, layout: Layout) -> Dialogue | Refusal:
    """The messages of the row's column; a first system message wins over the system column."""
    column = layout.columns.get("messages")
    if column is None:  # the answers of a pair are whole conversations
        return Dialogue([], tools(row, layout.column("tools")))
    found = message_list(required_list(row, column), column, layout, row.origin)
    if isinstance(found, Refusal):
        return found
    changes = (*_unread_keys(row.values[column], layout), *system_change(found, row, layout))
    dialogue = Dialogue(with_system(found, row, layout), tools(row, layout.column("tools")), changes)
    return openai.as_llamafactory(dialogue, layout.quirks) if layout.quirks and layout.formatting == "openai" else dialogue


def with_system(messages: list[Message], row: Row, layout: Layout) -> list[Message]:
    """The messages after the prompt of the system column, if the row has one and the messages do not begin with their own."""
    system = optional_text(row, layout.column("system"))
    if system and not (messages and messages[0].role == "system"):
        return [Message("system", system), *messages]
    return messages


def system_change(messages: list[Message], row: Row, layout: Layout) -> tuple[str, ...]:
    """What `with_system` leaves out: a prompt in the system column that is not the one the messages begin with."""
    system = optional_text(row, layout.column("system")).strip()
    is_other = system and messages and messages[0].role == "system" and messages[0].content.strip() != system
    return (f"{layout.column('system')} is not read: the messages begin with another system prompt",) if is_other else ()


def read_keys(layout: Layout) -> frozenset[str]:
    """The keys of messages that are read; none where rows are no lists of messages."""
    known = _KEYS.get(layout.formatting)
    return frozenset() if known is None else known | {layout.tags.get("role_tag", ""), layout.tags.get("content_tag", "")}


def unread_keys(entries: Any, layout: Layout) -> set[str]:
    """The keys of messages that are not read, and not null."""
    known = read_keys(layout)
    if not known or not isinstance(entries, list):
        return set()
    return {key for entry in entries if isinstance(entry, Mapping) for key in entry if key not in known and entry[key] is not None}


def _unread_keys(entries: list[Any], layout: Layout) -> tuple[str, ...]:
    told = layout.told_keys
    if told is None or all(entry.keys() <= told for entry in entries):
        return ()
    unread = unread_keys(entries, layout) - told
    return (not_read("key of messages", unread),) if unread else ()


def as_context(message: Message) -> Message:
    """The message, not trained."""
    return replace(message, trained=False) if message.role == "assistant" else message

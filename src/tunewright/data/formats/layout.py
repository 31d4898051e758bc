"""Which format a data set has, and how its columns and role tags are called. Standard library only.

Keys are those of LLaMA-Factory's `dataset_info.json`. A key that is not given keeps its default even if others are given;
LLaMA-Factory unsets the rest, so that rows vanish.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

OPTIONAL_COLUMNS = ("query", "history", "system", "tools")

COLUMN_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "alpaca": {"prompt": "instruction", "query": "input", "response": "output"},
    "sharegpt": {"messages": "conversations"},
    "openai": {"messages": "messages", "tools": "tools"},
    "table": {"prompt": "human", "response": "assistant"},
    "prompt_completion": {"prompt": "prompt", "response": "completion", "tools": "tools"},
    "text": {"prompt": "text"},
}
"""Format -> key of `columns` -> name of the column, as far as it has a default."""

FORMATTINGS = tuple(COLUMN_DEFAULTS)

COLUMN_KEYS: Mapping[str, tuple[str, ...]] = {
    "alpaca": ("prompt", "query", "response", "history", "system", "tools"),
    "sharegpt": ("messages", "system", "tools"),
    "openai": ("messages", "system", "tools"),
    "table": ("prompt", "response", "system"),
    "prompt_completion": ("prompt", "response", "system", "tools"),
    "text": ("prompt",),
}
"""Format -> the keys of `columns` that it reads."""

_SHAREGPT_TAGS = {
    "role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call", "system_tag": "system",
}
_OPENAI_TAGS = {
    "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "function", "system_tag": "system",
}
TAG_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "sharegpt": _SHAREGPT_TAGS, "openai": _OPENAI_TAGS, "prompt_completion": _OPENAI_TAGS,
}
"""Format -> key of `tags` -> name in the rows; formats without messages have no tags."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A format with the names it goes by in one data set. `given` are the keys of `columns` that the user wrote."""

    formatting: str
    columns: Mapping[str, str]
    tags: Mapping[str, str]
    given: frozenset[str] = frozenset()

    def column(self, key: str) -> str | None:
        """Name of the column for `key`, or None if the format has none."""
        return self.columns.get(key)

    def described(self) -> str:
        """`alpaca (prompt=instruction, query=input, response=output)`."""
        columns = ", ".join(f"{key}={name}" for key, name in self.columns.items())
        return f"{self.formatting} ({columns})"


def layout(formatting: str, columns: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None) -> Layout:
    """The layout of `formatting` with `columns` and `tags` over the defaults, key by key."""
    given = dict(columns or {})
    return Layout(formatting, {**COLUMN_DEFAULTS[formatting], **given},
                  {**TAG_DEFAULTS.get(formatting, {}), **(tags or {})},
                  frozenset(given))


def named_columns(columns: Mapping[str, str]) -> Layout | None:
    """Alpaca's layout with these names for prompt, query, response and history; None if they are the usual ones.

    As in a detected layout, history, system and tools are read where rows have them.
    """
    usual = {**COLUMN_DEFAULTS["alpaca"], "history": "history"}
    given = frozenset(key for key, name in columns.items() if name != usual[key])
    found = layout("alpaca", {"history": "history", "system": "system", "tools": "tools", **columns})
    return Layout(found.formatting, found.columns, found.tags, given) if given else None

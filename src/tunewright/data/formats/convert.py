"""The table of formats: conversion by name, and detection from a first row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tunewright.data.formats import alpaca, documents, openai, prompt_completion, sharegpt, table
from tunewright.data.formats.fields import Outcome
from tunewright.data.formats.layout import COLUMN_KEYS, Layout, layout
from tunewright.data.json_rows import Row

_CONVERTERS: Mapping[str, Callable[[Row, Layout], Outcome]] = {
    "alpaca": alpaca.convert, "sharegpt": sharegpt.convert, "openai": openai.convert, "table": table.convert,
    "prompt_completion": prompt_completion.convert, "text": documents.convert,
}

_QUESTION_ANSWER = (("instruction", "output"), ("instruction", "response"), ("query", "response"),
                    ("prompt", "response"),
                    ("question", "answer"))

_ALWAYS_READ = ("history", "system", "tools")
"""Columns that a detected layout reads where rows have them. Registered sets name them, as in LLaMA-Factory."""


def convert(row: Row, layout: Layout) -> Outcome:
    """The record of a row, or the reason to leave it out; raises `InputError` for a missing column or a wrong type."""
    return _CONVERTERS[layout.formatting](row, layout)


def detect(values: Mapping[str, Any]) -> Layout | None:
    """The layout of a data set whose first row is `values`, or None."""
    for column in ("messages", "conversations"):
        found = _messages_layout(values.get(column), column)
        if found is not None:
            return _with_extras(found, {"messages": column})
    if {"prompt", "completion"} <= values.keys():
        return _with_extras("prompt_completion", {})
    for prompt, response in _QUESTION_ANSWER:
        if {prompt, response} <= values.keys():
            return _with_extras("alpaca", {"prompt": prompt, "response": response})
    if {"human", "assistant"} <= values.keys() or table.PAIRS in values:
        return _with_extras("table", {})
    return layout("text") if "text" in values else None


def _messages_layout(messages: Any, column: str) -> str | None:
    if not isinstance(messages, list) or not messages or not isinstance(messages[0], Mapping):
        return None
    if "role" in messages[0]:
        return "openai"
    return "sharegpt" if {"from", "value"} <= messages[0].keys() else None


def _with_extras(formatting: str, columns: dict[str, str]) -> Layout:
    extras = {key: key for key in _ALWAYS_READ if key in COLUMN_KEYS[formatting]}
    found = layout(formatting, {**extras, **columns})
    return Layout(found.formatting, found.columns, found.tags)

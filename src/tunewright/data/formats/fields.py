"""Typed reading of a row's fields: the value, or an `InputError` that names file, line, key and what was wanted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from tunewright.data.json_rows import Row, json_type
from tunewright.data.records import Origin, Record, ToolCall
from tunewright.errors import InputError


class Converted(NamedTuple):
    """A record, and what was changed to make it."""

    record: Record
    changes: tuple[str, ...] = ()


class Refusal(NamedTuple):
    """A row that is left out: the reason (the same words for all such rows) and what it was in this one."""

    reason: str
    detail: str = ""


Outcome = Converted | Refusal


def required_text(row: Row, column: str) -> str:
    """The text in `column`; missing, null or another type is an error."""
    if column not in row.values:
        raise missing_column(row, column)
    return text(row.values[column], column, row.origin)


def optional_text(row: Row, column: str | None) -> str:
    """The text in `column`, or "" where the row has none or null."""
    value = row.values.get(column) if column is not None else None
    return "" if value is None else text(value, str(column), row.origin)


def required_list(row: Row, column: str) -> list[Any]:
    """The list in `column`."""
    if column not in row.values:
        raise missing_column(row, column)
    return listed(row.values[column], column, row.origin)


def missing_column(row: Row, column: str) -> InputError:
    """The error for a row without `column`."""
    return InputError(f"{column}: missing; columns present: {', '.join(row.values) or 'none'}", where=str(row.origin))


def text(value: Any, key: str, origin: Origin) -> str:
    """`value` if it is a string."""
    if not isinstance(value, str):
        wrong_type(key, "string", value, origin)
    return value


def listed(value: Any, key: str, origin: Origin) -> list[Any]:
    """`value` if it is a list."""
    if not isinstance(value, list):
        wrong_type(key, "array", value, origin)
    return value


def mapping(value: Any, key: str, origin: Origin) -> Mapping[str, Any]:
    """`value` if it is an object."""
    if not isinstance(value, Mapping):
        wrong_type(key, "object", value, origin)
    return value


def wrong_type(key: str, wanted: str, value: Any, origin: Origin) -> NoReturn:
    """Raise the error for a value of the wrong type."""
    raise InputError(f"{key}: {wanted} wanted, found {json_type(value)}", where=str(origin))


def parsed(value: str, key: str, origin: Origin) -> Any:
    """The JSON value that the string `value` holds."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise InputError(f"{key}: the string is not JSON: {said[0].lower()}{said[1:]}", where=str(origin)) from error


def tools(row: Row, column: str | None) -> tuple[Mapping[str, Any], ...]:
    """Function descriptions as `{"type": "function", "function": {...}}`; given as JSON text or as a list, wrapped or bare."""
    value = row.values.get(column) if column is not None else None
    if value is None or value == "":
        return ()
    key = str(column)
    found = parsed(value, key, row.origin) if isinstance(value, str) else value
    entries = [found] if isinstance(found, Mapping) else listed(found, key, row.origin)
    return tuple(_tool(entry, f"{key}[{position}]", row.origin) for position, entry in enumerate(entries))


def tool_call(value: Any, key: str, origin: Origin) -> ToolCall:
    """A call from `{"name", "arguments"}`, whose arguments are an object or the JSON text of one."""
    call = mapping(value, key, origin)
    name = text(call.get("name"), f"{key}.name", origin)
    arguments = call.get("arguments", {})
    if isinstance(arguments, str):
        found = mapping(parsed(arguments, f"{key}.arguments", origin), f"{key}.arguments", origin)
        return ToolCall(name, found, arguments)
    found = mapping(arguments, f"{key}.arguments", origin)
    return ToolCall(name, found, json.dumps(found, ensure_ascii=False))


def _tool(value: Any, key: str, origin: Origin) -> Mapping[str, Any]:
    entry = mapping(value, key, origin)
    wrapped = "function" in entry and isinstance(entry["function"], Mapping)
    text((entry["function"] if wrapped else entry).get("name"), f"{key}.name", origin)
    return entry if wrapped else {"type": "function", "function": entry}

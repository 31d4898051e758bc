"""Typed reading of a row's fields: the value, or an `InputError` that names file, line, key and what was wanted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, NoReturn

from tunewright.data.json_rows import Row, json_type, strict_value
from tunewright.data.records import Message, Origin, Record, ToolCall
from tunewright.errors import InputError

_NAMED: Final = 3
MEND: Final = "correct the row, or take it out"


class Converted(NamedTuple):
    """A record, and what was changed to make it."""

    record: Record
    changes: tuple[str, ...] = ()


class Refusal(NamedTuple):
    """A row that is left out: the reason (the same words for all such rows) and what it was in this one."""

    reason: str
    detail: str = ""


Outcome = Converted | Refusal


class Dialogue(NamedTuple):
    """What a format reads of a row: its turns, answers included, its tools, and what was changed. Not yet checked for order."""

    messages: list[Message]
    tools: tuple[Mapping[str, Any], ...] = ()
    changes: tuple[str, ...] = ()


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
    return InputError(f"{column}: missing; columns present: {', '.join(row.values) or 'none'}", where=str(row.origin), mend=MEND)


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


def not_read(what: str, names: Iterable[str]) -> str:
    """The change that columns, or keys of messages, are not read; the line of the set did not say so of these."""
    several = sorted(set(names))
    more = f" and {len(several) - _NAMED} more" if len(several) > _NAMED else ""
    return f"{what}{'s' if len(several) > 1 else ''} not read: {', '.join(several[:_NAMED])}{more}"


def wrong_type(key: str, wanted: str, value: Any, origin: Origin) -> NoReturn:
    """Raise the error for a value of the wrong type."""
    raise InputError(f"{key}: {wanted} wanted, found {json_type(value)}", where=str(origin), mend=MEND)


def parsed(value: str, key: str, origin: Origin) -> Any:
    """The JSON value that the string `value` holds."""
    try:
        return strict_value(value)
    except (ValueError, RecursionError) as error:
        said = error.msg[0].lower() + error.msg[1:] if isinstance(error, json.JSONDecodeError) else str(error)
        raise InputError(f"{key}: the string is not JSON: {said}", where=str(origin), mend=MEND) from error


def tools(row: Row, column: str | None) -> tuple[Mapping[str, Any], ...]:
    """The function descriptions in `column`; none where the row has no such column."""
    value = row.values.get(column) if column is not None else None
    return () if value is None or value == "" or value == {} else tools_of(value, str(column), row.origin)


def tools_of(value: Any, key: str, origin: Origin) -> tuple[Mapping[str, Any], ...]:
    """Function descriptions as `{"type": "function", "function": {...}}`; given as JSON text or as a list, wrapped or bare."""
    found = parsed(value, key, origin) if isinstance(value, str) else value
    if not found and (found is None or isinstance(found, Mapping)):
        return ()
    entries = [found] if isinstance(found, Mapping) else listed(found, key, origin)
    return tuple(_tool(entry, f"{key}[{position}]", origin) for position, entry in enumerate(entries))


def tool_call(value: Any, key: str, origin: Origin) -> ToolCall:
    """A call from `{"name", "arguments"}`, whose arguments are an object or the JSON text of one; empty text and null are no arguments."""
    call = mapping(value, key, origin)
    name = text(call.get("name"), f"{key}.name", origin)
    arguments = call.get("arguments", {})
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        return ToolCall(name, {}, "{}")
    if isinstance(arguments, str):
        found = mapping(parsed(arguments, f"{key}.arguments", origin), f"{key}.arguments", origin)
        return ToolCall(name, found, arguments)
    found = mapping(arguments, f"{key}.arguments", origin)
    return ToolCall(name, found, json.dumps(found, ensure_ascii=False))


def calls_in(value: str, key: str, origin: Origin) -> tuple[ToolCall, ...]:
    """The calls that the JSON text of one call, or of a list of them, holds."""
    found = parsed(value, key, origin)
    calls = found if isinstance(found, list) else [found]
    return tuple(tool_call(call, key, origin) for call in calls)


def _tool(value: Any, key: str, origin: Origin) -> Mapping[str, Any]:
    entry = mapping(value, key, origin)
    wrapped = "function" in entry and isinstance(entry["function"], Mapping)
    text((entry["function"] if wrapped else entry).get("name"), f"{key}.name", origin)
    return entry if wrapped else {"type": "function", "function": entry}


def flag(turn: Mapping[str, Any], key: str, origin: Origin) -> bool:
    """Whether an answer is trained: OpenAI's `weight` or ms-swift's `loss`, each 0 or 1, true or false; neither, or null, is yes."""
    for name in ("weight", "loss"):
        value = turn.get(name)
        if value is not None:
            if (isinstance(value, bool) and name == "weight") or not isinstance(value, int | float) or value not in (0, 1):
                wrong_type(f"{key}.{name}", "0 or 1", value, origin)
            if not value:
                return False
    return True

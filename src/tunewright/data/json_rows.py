"""Strict JSON: one row after the other with its line. Standard library only.

Refused beside broken syntax: NaN and infinities, a key twice in one object, half of a surrogate pair.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from tunewright.data.records import Origin
from tunewright.data.text_files import decoded_head, decoded_lines, decoded_text, is_packed, last_bytes
from tunewright.errors import InputError

_SPACE = re.compile(r"[ \t\r\n]*")
_CUT_TOKEN = re.compile(r"[-+.\\\"\w]*\s*")
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class Row(NamedTuple):
    """One row of a data file, column by column, and where it came from."""

    values: dict[str, Any]
    origin: Origin


class _CutShort(InputError):
    """The text ends before its JSON value does."""


class _Unwanted(ValueError):
    """Valid for Python's parser, not for us."""


def read_json(path: Path) -> Iterator[Row]:
    """Rows of a `.json` file: one array of objects, or one object per line."""
    if _first_character(path) == "{":
        yield from _lines_of_json(path)
    else:
        yield from _array_rows(path, decoded_text(path))


def read_jsonl(path: Path) -> Iterator[Row]:
    """Rows of a file with one JSON object per line; blank lines are skipped."""
    index = 0
    for number, line in enumerate(decoded_lines(path), start=1):
        if not line.isspace():
            yield Row(line_object(path, number, line), Origin(str(path), index, number))
            index += 1
    if index == 0:
        raise _no_rows(path)


def line_object(path: Path, number: int, line: str) -> dict[str, Any]:
    """The object on line `number`, which is not blank."""
    return _object(path, number, _line_value(path, number, line))


def read_json_head(path: Path, size: int) -> Iterator[Row]:
    """Rows that lie wholly in the first `size` bytes; for an array also checks that the file ends with `]`."""
    if _first_character(path) == "{":
        yield from _lines_of_json(path)
        return
    if not is_packed(path) and not last_bytes(path, 64).rstrip().endswith(b"]"):
        raise _refusal(path, None, "the array has no end: the file looks truncated")
    yield from _array_rows(path, decoded_head(path, size), complete=False)


def parse_strict(path: Path, text: str) -> Any:
    """The one JSON value of `text`, under the rules of this module; `path` is named in errors."""
    begin = _skip(text, 0)
    value, end = _decode(path, text, begin, 1)
    if _skip(text, end) != len(text):
        raise _refusal(path, _place(text, _skip(text, end)), "more text after the end of the JSON value")
    return value


def _lines_of_json(path: Path) -> Iterator[Row]:
    rows = read_jsonl(path)
    try:
        first = next(rows)
    except InputError as error:
        mend = "a .json file holds one array of objects, or one whole object per line"
        raise InputError(error.message, where=error.where, mend=error.mend or mend) from error
    yield first
    yield from rows


def _array_rows(path: Path, text: str, *, complete: bool = True) -> Iterator[Row]:
    begin = _skip(text, 0)
    if text[begin : begin + 1] != "[":
        raise _refusal(path, _place(text, begin), "an array of objects wanted")
    line, counted, position = 1, 0, _skip(text, begin + 1)
    if text[position : position + 1] == "]":
        raise _no_rows(path)
    index = 0
    while True:
        line += text.count("\n", counted, position)
        counted = position
        try:
            value, end = _decode(path, text, position, line)
        except _CutShort:
            if complete:
                raise
            return
        yield Row(_object(path, line, value), Origin(str(path), index, line))
        index += 1
        end = _skip(text, end)
        if text[end : end + 1] != ",":
            break
        position = _skip(text, end + 1)
    if complete:
        _check_array_end(path, text, end)


def _check_array_end(path: Path, text: str, end: int) -> None:
    if end == len(text):
        raise _refusal(path, _place(text, end), "the file ends inside the array: it looks truncated")
    if text[end] != "]":
        raise _refusal(path, _place(text, end), "`,` or `]` wanted after a row")
    if _skip(text, end + 1) != len(text):
        raise _refusal(path, _place(text, _skip(text, end + 1)), "more text after the end of the array")


def _line_value(path: Path, number: int, line: str) -> Any:
    text = line.rstrip("\r\n")
    begin = _skip(text, 0)
    try:
        value, end = _decode(path, text, begin, number, first_line=number)
    except _CutShort as error:
        if number == 1 and text[begin : begin + 1] == "[":
            raise InputError(error.message, where=error.where, mend="a file that is one array ends in .json") from error
        raise
    after = _skip(text, end)
    if after != len(text):
        raise _refusal(path, f"{number}:{after + 1}", "more text after the object; one object per line wanted")
    return value


def _decode(path: Path, text: str, begin: int, line: int, *, first_line: int = 1) -> tuple[Any, int]:
    """The value at `begin` and where it ends. `line` is where it begins, `first_line` that of the text's beginning."""
    try:
        value, end = _DECODER.raw_decode(text, begin)
    except json.JSONDecodeError as error:
        raise _syntax_error(path, f"{error.lineno + first_line - 1}:{error.colno}", error) from error
    except (_Unwanted, RecursionError) as error:
        what = str(error) if isinstance(error, _Unwanted) else "nested too deeply"
        raise _refusal(path, str(line), what) from error
    except ValueError as error:  # Python reads no longer ones from a text.
        raise _refusal(path, str(line), "a number of thousands of digits") from error
    if "\\u" in text and _ESCAPED_SURROGATE.search(text, begin, end):
        _refuse_lone_surrogate(path, line, value)
    return value, end


def _syntax_error(path: Path, place: str, error: json.JSONDecodeError) -> InputError:
    said = error.msg[0].lower() + error.msg[1:].removesuffix(" starting at").removesuffix(" at")
    if error.msg.startswith("Unterminated") or _CUT_TOKEN.fullmatch(error.doc, error.pos):
        return _CutShort(f"not valid JSON: {said}, the text ends in the middle of a row", where=f"{path}:{place}")
    return InputError(f"not valid JSON: {said}", where=f"{path}:{place}")


def _refuse_lone_surrogate(path: Path, line: int, value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise _refusal(path, str(line), f"{half} is half of a surrogate pair, not a character") from error


def _object(path: Path, line: int, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    mend = "a file that is one array ends in .json" if isinstance(value, list) else None
    raise InputError(f"a row is a JSON object, found {json_type(value)}", where=f"{path}:{line}", mend=mend)


def strict_value(text: str) -> Any:
    """The one JSON value of a text inside a row, under the rules of this module; numbers that are too large are refused too. Raises
    `ValueError`."""
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)


def json_type(value: Any) -> str:
    """JSON's word for the type of `value`, with the value itself where it is short."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"boolean {str(value).lower()}"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int | float):
        return f"{'integer' if isinstance(value, int) else 'number'} {str(value)[:20]}"
    if isinstance(value, list | tuple):
        return "array"
    return "object" if isinstance(value, dict) else type(value).__name__


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for position, key in enumerate(keys) if key in keys[:position])
        raise _Unwanted(f"the key `{twice}` is there twice in one object")
    return values


def _no_constant(name: str) -> NoReturn:
    raise _Unwanted(f"{name} is not JSON; write null or a string")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _Unwanted(f"{digits} is too large for a number")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _first_character(path: Path) -> str:
    return decoded_head(path, 4096).lstrip(" \t\r\n")[:1]


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _place(text: str, position: int) -> str:
    line_start = text.rfind("\n", 0, position) + 1
    return f"{text.count(chr(10), 0, position) + 1}:{position - line_start + 1}"


def _refusal(path: Path, place: str | None, what: str) -> InputError:
    return InputError(what, where=f"{path}:{place}" if place else str(path))


def _no_rows(path: Path) -> InputError:
    return InputError("the file holds no rows", where=str(path), mend="put rows into it or take it out of the data set")

"""Texts that spell values: JSON, Python literals, comma lists, `key=value` pairs; and back. Standard library only."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any


def read_literal(text: str) -> Any:
    """The JSON value or Python literal that `text` spells; raises ValueError. Never evaluates anything."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(text.strip())
            str(value)  # a ValueError for an integer of thousands of digits, which no message could show
            return value
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise ValueError(f"{text!r} is neither JSON nor a Python literal") from error


def split_commas(text: str) -> tuple[str, ...]:
    """`a,b` -> (a, b); a comma inside brackets does not split, so that patterns such as `[0-9]{1,2}` stay whole."""
    parts, depth, start = [], 0, 0
    for position, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth <= 0:
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    return tuple(part.strip() for part in parts if part.strip())


def show(value: Any) -> str:
    """A value as a user would write it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple | list):
        return ", ".join(show(one) for one in value) if value else "[]"
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def read_mapping(raw: Any) -> dict[str, Any]:
    """The mapping that `raw` spells; raises ValueError saying what is wrong."""
    if isinstance(raw, str) and not raw.lstrip().startswith("{"):
        return _pairs(raw)
    if isinstance(raw, str):
        raw = read_literal(raw)
    if not isinstance(raw, Mapping):
        raise ValueError(f"{show(raw)} is not a mapping")
    for key in raw:
        if not isinstance(key, str):
            raise ValueError(f"the key {show(key)} is not a text")
    return {key: _numbers(value) for key, value in raw.items()}


def _pairs(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in split_commas(text):
        key, sign, value = (one.strip() for one in part.partition("="))
        if not (sign and key.isidentifier() and value) or value.startswith("="):
            raise ValueError(f"'{part}' is not key=value")
        if key in found:
            raise ValueError(f"'{key}' is given twice")
        found[key] = _scalar(value)
    return found


def _scalar(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.lower() in ("null", "none"):
        return None
    try:
        return read_literal(text)
    except ValueError:
        return text


def _numbers(value: Any) -> Any:
    """YAML 1.1 leaves `1e-4` a text; inside a mapping nothing declares the type, so a text that is a number becomes one."""
    if isinstance(value, str) and value[:1] in "+-.0123456789":
        try:
            return float(value)
        except ValueError:
            return value
    return value

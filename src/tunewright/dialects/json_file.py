"""JSON text -> values and the line of every key. The standard parser decides what is JSON; positions are found beside it."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

from tunewright.dialects.limits import MAX_DEPTH, KeyPath, too_deep, twice
from tunewright.errors import refuse

_SPACE = " \t\r\n"


def parse(text: str, path: str) -> tuple[Any, dict[KeyPath, int]]:
    """The value of a JSON text and the line of each key. Raises InputError."""
    if not text.strip():
        return None, {}
    try:
        values = json.loads(text, parse_constant=_Constant)
    except json.JSONDecodeError as error:
        refuse(f"not valid JSON: {error.msg}", where=f"{path}:{error.lineno}:{error.colno}", mend="correct the syntax there")
    except ValueError:
        refuse("holds a number of thousands of digits", where=path, mend="write a number that a parameter can have")
    except RecursionError:
        too_deep(path)
    scan = _Scan(text, path)
    scan.value(scan.skip(0), (), 0)
    return values, scan.lines


class _Constant(str):
    """NaN or Infinity, refused where its key is known."""


class _Scan:
    """A walk over text that is known to be JSON, noting the line of each key."""

    def __init__(self, text: str, path: str) -> None:
        self.text = text
        self.path = path
        self.lines: dict[KeyPath, int] = {}
        self.breaks = [found.start() for found in re.finditer("\n", text)]

    def skip(self, position: int) -> int:
        while position < len(self.text) and self.text[position] in _SPACE:
            position += 1
        return position

    def line(self, position: int) -> int:
        return bisect_left(self.breaks, position) + 1

    def value(self, position: int, keys: KeyPath, depth: int) -> int:
        """The position after the value that begins at `position`."""
        if depth > MAX_DEPTH:
            too_deep(f"{self.path}:{self.line(position)}")
        opening = self.text[position]
        if opening == "{":
            return self._object(position, keys, depth)
        if opening == "[":
            return self._array(position, keys, depth)
        if opening == '"':
            return int(scanstring(self.text, position + 1)[1])
        return self._word(position)

    def _word(self, position: int) -> int:
        end = position
        while end < len(self.text) and self.text[end] not in _SPACE + ",]}":
            end += 1
        if self.text[position:end].lstrip("-") in ("NaN", "Infinity"):
            refuse(f"{self.text[position:end]} is not a number in JSON", where=f"{self.path}:{self.line(position)}",
                   mend="write a finite number or null")
        return end

    def _array(self, position: int, keys: KeyPath, depth: int) -> int:
        position = self.skip(position + 1)
        while self.text[position] != "]":
            position = self.skip(self.value(position, keys, depth + 1))
            if self.text[position] == ",":
                position = self.skip(position + 1)
        return position + 1

    def _object(self, position: int, keys: KeyPath, depth: int) -> int:
        seen: dict[str, int] = {}
        position = self.skip(position + 1)
        while self.text[position] != "}":
            line = self.line(position)
            key, position = scanstring(self.text, position + 1)
            if key in seen:
                twice(self.path, key, seen[key], line)
            seen[key] = line
            self.lines.setdefault((*keys, key), line)
            position = self.skip(self.skip(position) + 1)
            position = self.skip(self.value(position, (*keys, key), depth + 1))
            if self.text[position] == ",":
                position = self.skip(position + 1)
        return position + 1

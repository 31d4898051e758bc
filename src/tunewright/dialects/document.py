"""YAML and JSON files -> plain values with the line of every key. Only PyYAML beside the standard library.

Refused with file and line: duplicate keys, tags, more than 100 aliases, nesting deeper than 32, NaN, text that is not UTF-8.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunewright.dialects.limits import KeyPath
from tunewright.errors import refuse

MAX_BYTES: Final = 2**22
_DATA_ENDINGS: Final = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow")


@dataclass(frozen=True, slots=True)
class Document:
    """The values of a file, and the line on which each key stands: `lines[("lora", "lora_rank")]`."""

    path: str
    values: Mapping[str, Any]
    lines: Mapping[KeyPath, int]

    def where(self, *keys: str) -> str:
        """`file:line` of a key."""
        return f"{self.path}:{self.lines.get(keys, 1)}"


def read_document(path: str) -> Document:
    """The mapping in a YAML or JSON file. Raises InputError with `file:line` or `file:line:column`."""
    text = _read_text(path)
    is_json = path.lower().endswith((".json", ".jsonc")) or (
        not path.lower().endswith((".yaml", ".yml")) and text.lstrip()[:1] == "{")
    if is_json:
        from tunewright.dialects import json_file

        values, lines = json_file.parse(text, path)
    else:
        from tunewright.dialects import yaml_file

        values, lines = yaml_file.parse(text, path)
    if not isinstance(values, dict):
        refuse("the file holds no settings" if values is None else "the file is not a mapping of keys to values",
               where=f"{path}:1" if isinstance(values, str) else path, mend="write one `key: value` on each line")
    return Document(path, values, lines)


def _read_text(path: str) -> str:
    file = Path(path)
    if not os.path.exists(file):  # False too for a name that no file can have
        refuse("no such file", where=path, mend=_other_files(file))
    if file.is_dir():
        refuse("is a directory, not a configuration file", where=path, mend="name a YAML or JSON file")
    if file.suffix.lower() in _DATA_ENDINGS:
        refuse("holds rows, not settings", where=path, mend=f"to train on it, write dataset={path}")
    if file.stat().st_size > MAX_BYTES:
        refuse(f"is {file.stat().st_size} bytes long, too long for a configuration", where=path,
               mend="name a YAML or JSON file with settings, not with data")
    raw = file.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[:error.start].count(b"\n") + 1
        refuse(f"not UTF-8 text (byte {error.start})", where=f"{path}:{line}", mend="save the file as UTF-8")


def _other_files(file: Path) -> str:
    from tunewright.config.table import nearest

    beside = file.parent if os.path.isdir(file.parent) else Path()
    names = [one.name for one in sorted(beside.iterdir())[:1000] if one.suffix in (".yaml", ".yml", ".json") or (
        not file.suffix and one.is_dir())]
    close = nearest(file.name, names, 1)
    return f"did you mean {beside / close[0]}?" if close else "give the path of a YAML or JSON file, or key=value settings"

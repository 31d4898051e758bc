"""A run -> the settings of a vocabulary, with a report for every key: what changed its name or form, and what has no equivalent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tunewright.config.derive import derived
from tunewright.config.literals import show
from tunewright.config.table import Row, table, values
from tunewright.dialects.converters import CONVERTERS
from tunewright.dialects.known import get_dialect
from tunewright.dialects.read import Reading

Kind = Literal["exact", "renamed", "value mapped", "default made explicit", "no equivalent"]


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one parameter: `key` is its name in the target, None where it has none."""

    field: str
    kind: Kind
    key: str | None
    detail: str

    def text(self) -> str:
        """One line of the report."""
        return f"{self.kind}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Translation:
    """Settings in the target vocabulary, in the order of our groups, and the report."""

    dialect: str
    settings: Mapping[str, Any]
    report: tuple[Line, ...]


def translate(reading: Reading, target: str) -> Translation:
    """The settings that make `target` mean the same run: what was written, and every default that differs there."""
    get_dialect(target)
    settings: dict[str, Any] = {}
    report: list[Line] = []
    current = values(reading.config)
    for field, row in table().items():
        is_given = field in reading.given
        if not is_given and current[field] == row.default_in(target):
            continue
        line, value = _one(reading, row, current[field], target)
        if line is None or (line.kind == "no equivalent" and current[field] == row.param.default and not is_given):
            continue
        report.append(line)
        if line.key is not None:
            settings[line.key] = value
    return Translation(target, settings, tuple(report))


def _one(reading: Reading, row: Row, value: Any, target: str) -> tuple[Line | None, Any]:
    if target == "native":
        key, theirs = row.field, _plain(value)
    else:
        aliases = row.param.names.get(target)
        if not aliases:
            return Line(row.field, "no equivalent", None, f"{row.field} {show(value)} is not known in {target}"), None
        if row.field == "neat_packing" and value and not derived(reading.config)[0].data.packing:
            # There, neat_packing would turn packing on; without packing it says nothing here.
            return None, None
        key, converter = aliases[0].name, aliases[0].convert
        theirs = CONVERTERS[converter].theirs(value) if converter else _plain(value)
    return _line(reading, row, key, value, theirs), theirs


def _line(reading: Reading, row: Row, key: str, value: Any, theirs: Any) -> Line:
    origin = reading.origins[row.field]
    if not origin.is_given:
        return Line(row.field, "default made explicit", key, f"{key} {show(theirs)}")
    written = (origin.key or row.field).lstrip("-").replace("-", "_").rpartition(".")[2]
    if show(_plain(value)) != show(theirs) and not isinstance(value, tuple | Mapping):
        return Line(row.field, "value mapped", key, f"{written} -> {key} {show(theirs)}")
    if written != key:
        return Line(row.field, "renamed", key, f"{written} -> {key}")
    return Line(row.field, "exact", key, key)


def _plain(value: Any) -> Any:
    """A value as YAML and JSON have it; whole numbers without a fraction."""
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def to_text(translation: Translation, *, suffix: str) -> str:
    """The settings as YAML, or as JSON if the suffix is .json; both name their vocabulary."""
    settings = {"dialect": translation.dialect, **translation.settings}
    if suffix.lower() == ".json":
        return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    import yaml

    # One line for each setting: lists and mappings in flow style, below keys in block style.
    return "".join(
        yaml.safe_dump({key: value}, allow_unicode=True, width=10_000, default_flow_style=None if isinstance(value, list | dict) else False)
        for key, value in settings.items())

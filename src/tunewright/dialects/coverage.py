"""Every name of every vocabulary with what becomes of it: honoured, an alias, honoured only on some hardware, or refused and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

from tunewright.config.param import DIALECTS, NOT_BUILT
from tunewright.config.refused.table import refused_in
from tunewright.config.table import names_in

Status = Literal["honoured", "alias", "honoured only on", "refused", "not built yet"]
STATUSES: Final[tuple[Status, ...]] = ("honoured", "alias", "honoured only on", "refused", "not built yet")

BY_THE_COMMAND_LINE: Final[Mapping[str, tuple[str, ...]]] = {"llamafactory": ("help",)}
"""Names that the command line itself honours."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of a vocabulary. `concept`: the parameter of ours, or what is refused. `detail`: of what it is an alias, on what it is
    honoured, or why it is refused. `effect`: the test that shows that changing it changes something. `today`: the name is newer than
    the release that the vocabulary's document describes."""

    name: str
    status: Status
    concept: str
    detail: str | None
    effect: str | None
    today: bool


def entries(dialect: str) -> list[Entry]:
    """Every name of a vocabulary, in alphabetical order."""
    found = [_honoured(dialect, name) for name in names_in(dialect)]
    found += [Entry(name, "honoured", name, None, effects().get(name), False) for name in BY_THE_COMMAND_LINE.get(dialect, ())]
    for name, (parameter, inert) in refused_in(dialect).items():
        status: Status = "not built yet" if parameter.is_pending else "refused"
        found.append(Entry(name, status, parameter.concept, None if parameter.is_pending else parameter.because, None, inert.today))
    return sorted(found, key=lambda entry: entry.name)


def _honoured(dialect: str, name: str) -> Entry:
    row, alias = names_in(dialect)[name]
    first = row.param.names[dialect][0].name
    effect = effects().get(row.field)
    if name != first:
        return Entry(name, "alias", row.field, first, effect, alias.today)
    if row.param.only_on:
        return Entry(name, "honoured only on", row.field, row.param.only_on, effect, alias.today)
    return Entry(name, "honoured", row.field, None, effect, alias.today)


@cache
def effects() -> Mapping[str, str]:
    """Parameter -> the test that shows its effect; generated from the marks of the tests."""
    found: dict[str, str] = json.loads(files("tunewright.dialects").joinpath("effects.json").read_text(encoding="utf-8"))
    return found


def counts(dialect: str) -> dict[str, int]:
    """How many documented names of a vocabulary have each status."""
    documented = [entry for entry in entries(dialect) if not entry.today]
    return {status: sum(entry.status == status for entry in documented) for status in STATUSES}


def refused_values() -> list[tuple[str, str, str]]:
    """(parameter, value, reason) of every value that a vocabulary has and we refuse."""
    rows = {row.field: row for dialect in DIALECTS for row, _ in names_in(dialect).values()}
    return [(row.field, value, reason) for row in rows.values() for value, reason in row.param.refused_values.items()]


def as_json() -> dict[str, dict[str, Any]]:
    """Per vocabulary: name -> status, concept, effect test, and the detail of the status."""
    return {dialect: {entry.name: {"status": entry.status, "concept": entry.concept, "effect": entry.effect, "detail": entry.detail,
                                   "today": entry.today} for entry in entries(dialect)} for dialect in DIALECTS}


def summary() -> str:
    """A table: one line per vocabulary and one for the total."""
    rows = [(dialect, counts(dialect)) for dialect in DIALECTS]
    rows.append(("total", {status: sum(found[status] for _, found in rows) for status in STATUSES}))
    lines = [f"{'vocabulary':<16}" + "".join(f"{status:>18}" for status in STATUSES) + f"{'names':>8}"]
    lines += [f"{name:<16}" + "".join(f"{found[status]:>18}" for status in STATUSES) + f"{sum(found.values()):>8}" for name, found in rows]
    return "\n".join(lines) + "\n"


def coverage_text() -> str:
    """The text of docs/coverage.md."""
    parts = [
        "# Coverage of the vocabularies\n\nGenerated from the declarations in `src/tunewright/config`; do not edit. "
        "`tunewright coverage --json` says the same to machines.\nA refused name is accepted at values that change nothing; at any "
        f"other value the run is refused with the reason.\n`{NOT_BUILT}` is a reason that will go away.\n\n```\n{summary()}```\n"]
    for dialect in DIALECTS:
        parts.append(f"\n## {dialect}\n\n| name | status | our parameter | effect shown by |\n|---|---|---|---|\n")
        parts += [_line(entry) for entry in entries(dialect)]
    parts.append("\n## Values that are refused\n\n| parameter | value | reason |\n|---|---|---|\n")
    parts += [f"| `{field}` | `{value}` | {reason} |\n" for field, value, reason in refused_values()]
    return "".join(parts)


def _line(entry: Entry) -> str:
    words = {"alias": f"alias of `{entry.detail}`", "honoured only on": f"honoured only on {entry.detail}",
             "refused": f"refused: {entry.detail}"}
    status = words.get(entry.status, entry.status) + (" (newer than the document)" if entry.today else "")
    effect = f"`{entry.effect.rpartition('/')[2]}`" if entry.effect else ""
    return f"| `{entry.name}` | {status} | `{entry.concept}` | {effect} |\n"

"""Written names and values in one vocabulary -> fields and values of ours, or problems in the user's own words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tunewright.config.coerce import BadValueError, coerce
from tunewright.config.literals import show
from tunewright.config.param import Alias
from tunewright.config.refused.table import refusers
from tunewright.config.table import Row, nearest, owners, table
from tunewright.dialects.converters import ABSENT, CONVERTERS
from tunewright.dialects.dialect import Dialect, Refusal, Written
from tunewright.dialects.refusals import TOKEN_VARIABLES, looks_secret, name_refusal, reason, value_refusal
from tunewright.errors import Problem


@dataclass(slots=True)
class Interpretation:
    """Values by field with what they were written as; problems; the fields whose values are wrong."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, Written] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bad: set[str] = field(default_factory=set)


def interpret(written: Iterable[Written], dialect: Dialect, *, ignored: frozenset[str] = frozenset()) -> Interpretation:
    """Interpret everything written; `ignored` names are left out without a problem."""
    found = Interpretation()
    for one in written:
        if one.name not in ignored:
            _interpret_one(one, dialect, found)
    return found


def _interpret_one(one: Written, dialect: Dialect, found: Interpretation) -> None:
    target = find_name(one, dialect)
    if target is None:
        refusal = _refused(one, dialect)
        if refusal is not None:
            found.problems.append(_problem(one, refusal.what, refusal.mend))
        return
    row, alias, one = target
    places = dialect.sections.get(one.name, (row.group,))
    if one.group is not None and one.group not in places:
        found.problems.append(_problem(one, f"belongs to the group {places[0]}, not to {one.group}", f"write {places[0]}.{one.name}"))
        return
    refusal = value_refusal(row, one.value)
    if refusal is not None:
        found.problems.append(_problem(one, refusal.what, refusal.mend, row))
        found.bad.add(row.field)
        return
    try:
        raw = CONVERTERS[alias.convert].ours(one.value) if alias.convert else one.value
        if raw is not ABSENT:
            _settle(one, row, coerce(row, raw), found)
    except BadValueError as error:
        found.problems.append(_problem(one, error.what, error.mend, row))
        found.bad.add(row.field)
        return
    if alias.deprecated and raw is not ABSENT:
        found.notes.append(f"{one.where}: {one.key}: an old name of {dialect.name}; its name is {_preferred(row, dialect)}")


def _settle(one: Written, row: Row, value: Any, found: Interpretation) -> None:
    """Take the value, unless another name of the parameter, written in the same place, says otherwise."""
    before = found.sources.get(row.field)
    if before is not None and before.name != one.name:
        if before.source == one.source and found.values[row.field] != value:
            found.problems.append(_problem(
                one, f"contradicts {before.key}: {show(before.value)} at {before.where}; both are names of {row.field}",
                "remove one of them"))
            return
        if before.source == "command line":
            return
    found.values[row.field] = value
    found.sources[row.field] = one


def find_name(one: Written, dialect: Dialect) -> tuple[Row, Alias, Written] | None:
    """The parameter that a written name stands for; `no_x` becomes x with the opposite value. None if there is none."""
    names = dialect.names()
    if one.name in names:
        return (*names[one.name], one)
    positive = one.name.removeprefix("no_")
    if positive != one.name and positive in names and names[positive][0].base == "bool":
        return (*names[positive], Written(one.key, positive, _opposite(one.value), one.where, one.source, one.group))
    own = table().get(one.name)
    if own is not None and one.source == "command line" and dialect.name not in own.param.names:
        return own, Alias(one.name), one
    return None


def _opposite(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return {"true": False, "false": True}.get(str(value).strip().lower(), value)


def _preferred(row: Row, dialect: Dialect) -> str | None:
    if dialect.name == "native":
        return row.field
    aliases = row.param.names.get(dialect.name)
    return aliases[0].name if aliases else None


def _refused(one: Written, dialect: Dialect) -> Refusal | None:
    if one.name in TOKEN_VARIABLES and one.value not in (None, "", False):
        return Refusal("a secret does not belong in a configuration or on a command line",
                       f"set the environment variable {TOKEN_VARIABLES[one.name]}")
    if dialect.refuses(one.name):
        return name_refusal(one, dialect)
    if one.name in TOKEN_VARIABLES:
        return None
    known = owners(one.name)
    if not known and looks_secret(one.name):
        return Refusal("a secret does not belong in a configuration or on a command line", "set it as an environment variable")
    if known:
        return _foreign(*known[0], dialect)
    others = refusers(one.name)
    if others:
        theirs, parameter, _ = others[0]
        what = f"is a name of the {theirs} vocabulary, not of {dialect.name}, and {reason(parameter)}"
        return Refusal(what, parameter.mend or "remove it")
    close = nearest(one.name, dialect.names(), 1)
    return Refusal("unknown key", f"did you mean {close[0]}?" if close else "`tunewright explain` lists the known ones")


def _foreign(theirs: str, row: Row, dialect: Dialect) -> Refusal:
    preferred = _preferred(row, dialect)
    meaning = f" for {row.field}" if theirs != "native" else ""
    what = f"is a name of the {theirs} vocabulary{meaning}, not of {dialect.name}"
    if preferred is None:
        return Refusal(f"{what}, which has none for it", "give it on the command line, or `tunewright convert --to native` the file")
    return Refusal(what, f"write {preferred}")


def _problem(one: Written, what: str, mend: str | None, row: Row | None = None) -> Problem:
    label = one.key if row is None or row.field == one.name else f"{one.key} (our {row.field})"
    return Problem(f"{label}: {what}", where=one.where, mend=mend)

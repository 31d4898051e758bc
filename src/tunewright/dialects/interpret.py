"""Written names and values in one vocabulary -> fields and values of ours, or problems in the user's own words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tunewright.config.coerce import BadValueError, coerce
from tunewright.config.literals import show, split_commas
from tunewright.config.param import DIALECTS, Alias
from tunewright.config.refused.table import refused_in, refusers
from tunewright.config.spelling import did_you_mean, nearest, slips
from tunewright.config.table import Row, group_types, names_in, owners, table
from tunewright.dialects.converters import ABSENT, CONVERTERS
from tunewright.dialects.dialect import Dialect, Refusal, Written
from tunewright.dialects.refusals import TOKEN_VARIABLES, looks_secret, name_refusal, opposite_of, reason, value_refusal
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
    misplaced = _misplaced(one, dialect, target[0] if target else None)
    if misplaced is not None:
        found.problems.append(misplaced)
        return
    if target is None:
        _without_parameter(one, dialect, found)
        return
    row, alias, one = target
    refusal = value_refusal(row, one.value)
    if refusal is not None:
        found.problems.append(_problem(one, refusal.what, refusal.mend, row))
        found.bad.add(row.field)
        return
    try:
        raw = CONVERTERS[alias.convert].ours(one.value) if alias.convert else one.value
        if raw is not ABSENT:
            value = coerce(row, raw)
            _check_documented(one, alias, value)
            _settle(one, row, value, found)
    except BadValueError as error:
        refusal = _misspelt_word(one.value, row, alias) or _undocumented_word(one.value, alias) or Refusal(error.what, error.mend)
        found.problems.append(_problem(one, refusal.what, refusal.mend, row))
        found.bad.add(row.field)
        return
    if alias.deprecated and raw is not ABSENT:
        found.notes.append(f"{one.where}: {one.key}: an old name of {dialect.name}; its name is {_preferred(row, dialect)}")


def _check_documented(one: Written, alias: Alias, value: Any) -> None:
    """Raise BadValueError for a value that we have and the vocabulary has not."""
    if alias.choices is None or value is None or value in alias.choices:
        return
    allowed = ", ".join(show(choice) for choice in _their_choices(alias))
    raise BadValueError(f"'{one.value}' is not a value of this vocabulary", f"choose one of {allowed}, or write our own vocabulary")


def _their_choices(alias: Alias) -> list[Any]:
    """The values of a name, in the form of its vocabulary."""
    theirs = CONVERTERS[alias.convert].theirs if alias.convert else lambda ours: ours
    return [theirs(choice) for choice in alias.choices or ()]


def _undocumented_word(value: Any, alias: Alias) -> Refusal | None:
    """The refusal of a text that neither we nor the vocabulary have, where that has fewer words than we have; None elsewhere."""
    allowed = [str(choice) for choice in _their_choices(alias)]
    if not allowed or not isinstance(value, str):
        return None
    return Refusal(f"'{value}' is not one of {', '.join(allowed)}", did_you_mean(nearest(value, allowed), "'"))


def _misspelt_word(value: Any, row: Row, alias: Alias) -> Refusal | None:
    """The refusal of a text where the vocabulary has other words than we have, with its own words; None elsewhere."""
    converter = CONVERTERS[alias.convert] if alias.convert else None
    if converter is None or not converter.words or not isinstance(value, str):
        return None
    same = (one for one in row.param.choices or () if converter.theirs((one,) if row.base == "names" else one) == one)
    allowed = [*(one for one in same if isinstance(one, str)), *converter.words]
    wrong = [one for one in split_commas(value) or ("",) if one not in allowed]
    return Refusal(f"'{wrong[0]}' is not one of {', '.join(allowed)}", did_you_mean(nearest(wrong[0], allowed), "'")) if wrong else None


def _misplaced(one: Written, dialect: Dialect, row: Row | None) -> Problem | None:
    """The problem of a known name in a section that is not its own."""
    if one.group is None:
        return None
    name = one.name if one.name in dialect.sections else one.name.removeprefix("no_")
    places = dialect.sections.get(name) or ((row.group,) if row is not None else ())
    if not places or one.group in places:
        return None
    word = "section" if dialect.sections else "group"
    return _problem(one, f"belongs to the {word} {places[0]}, not to {one.group}", f"write {places[0]}.{one.name}")


def _without_parameter(one: Written, dialect: Dialect, found: Interpretation) -> None:
    """A name that stands for no parameter of ours: refused, unknown, or known and harmless."""
    refusal = _refused(one, dialect)
    if refusal is not None:
        found.problems.append(_problem(one, refusal.what, refusal.mend))
        return
    known = refused_in(dialect.name).get(one.name)
    if known is not None and known[1].deprecated:
        found.notes.append(f"{one.where}: {one.key}: an old name of {dialect.name}, which changes nothing at this value")


def _settle(one: Written, row: Row, value: Any, found: Interpretation) -> None:
    """Take the value, unless another name of the parameter, written in the same place, says otherwise."""
    before = found.sources.get(row.field)
    if before is not None and (before.name != one.name or (one.source == "file" and before.key != one.key)):
        if _in_one_place(before, one) and found.values[row.field] != value:
            found.problems.append(_problem(
                one, f"contradicts {before.key}: {show(before.value)} at {before.where}; both are names of {row.field}",
                "remove one of them"))
            return
        if before.source == "command line":
            return
    found.values[row.field] = value
    found.sources[row.field] = one


def _in_one_place(before: Written, one: Written) -> bool:
    """Whether both stand in one file, or both on the command line: then neither is the later word."""
    return before.source == one.source and before.where.rpartition(":")[0] == one.where.rpartition(":")[0]


def find_name(one: Written, dialect: Dialect) -> tuple[Row, Alias, Written] | None:
    """The parameter that a written name stands for; `no_x` becomes x with the opposite value. None if there is none."""
    if one.field is not None:
        return table()[one.field], Alias(one.name), one
    names = dialect.names()
    if one.name in names:
        return (*names[one.name], one)
    positive = one.name.removeprefix("no_")
    opposite = replace(one, name=positive, value=opposite_of(one.value))
    if positive != one.name and positive in names and names[positive][0].base == "bool":
        return (*names[positive], opposite)
    if one.source not in ("command line", "environment"):
        return None
    for own in (one, opposite) if positive != one.name else (one,):
        row = table().get(own.name)
        if row is not None and dialect.name not in row.param.names and (own is one or row.base == "bool"):
            return row, Alias(own.name), own
    return None


def _preferred(row: Row, dialect: Dialect) -> str | None:
    if dialect.name == "native":
        return row.field
    aliases = row.param.names.get(dialect.name)
    return aliases[0].name if aliases else None


def _refused(one: Written, dialect: Dialect) -> Refusal | None:
    stands = dialect.refuses(one.name) and name_refusal(one, dialect) is None
    if one.name in TOKEN_VARIABLES and one.value not in (None, "", False) and not stands:
        return Refusal("a secret does not belong in a configuration or on a command line",
                       f"set the environment variable {TOKEN_VARIABLES[one.name]}")
    if dialect.refuses(one.name):
        return name_refusal(one, dialect)
    if one.name in TOKEN_VARIABLES:
        return None
    known = owners(one.name)
    if not known and looks_secret(one.name) and not slips(one.name, [*dialect.names(), *refused_in(dialect.name)]):
        return Refusal("a secret does not belong in a configuration or on a command line", "set it as an environment variable")
    if known:
        return _foreign(*known[0], dialect)
    others = refusers(one.name)
    if others:
        theirs, parameter, _ = others[0]
        what = f"is a name of the {theirs} vocabulary, not of {dialect.name}, and {reason(parameter)}"
        return Refusal(what, parameter.mend or "remove it")
    sections = nearest(one.name, section_names_of(dialect), 1) if isinstance(one.value, Mapping) else []
    if sections:
        return Refusal("unknown section", f"did you mean {sections[0]}?")
    return Refusal("unknown key", did_you_mean(_meant(one.name, dialect)) or "`tunewright explain` lists the known ones")


def _meant(name: str, dialect: Dialect) -> list[str]:
    """The vocabulary's names that a misspelt one may have meant; failing that, its names for what resembles it in another."""
    close = nearest(name, [*dialect.names(), *refused_in(dialect.name)])
    if close:
        return close
    theirs = [one for other in DIALECTS for one in nearest(name, names_in(other))]
    found = [_preferred(owners(one)[0][1], dialect) for one in theirs]
    return list(dict.fromkeys(one for one in found if one is not None))[:3]


def section_names_of(dialect: Dialect) -> list[str]:
    """The sections of the vocabulary's files, or our groups."""
    return sorted({section for several in dialect.sections.values() for section in several}) or list(group_types())


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

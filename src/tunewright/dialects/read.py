"""Files and overrides in any vocabulary -> a RunConfig whose every value has an origin, or one full report of what is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Any

from tunewright.config import checks
from tunewright.config.checks import Context
from tunewright.config.derive import derived
from tunewright.config.environment import VARIABLES, spelled_here, steering_in_vain
from tunewright.config.origin import Origin
from tunewright.config.rules.rule import Purpose
from tunewright.config.run import RunConfig
from tunewright.config.table import build, defaults, table
from tunewright.dialects.arguments import parse_arguments, refuse_bare_names, split_name
from tunewright.dialects.choose import Choice, choose
from tunewright.dialects.dialect import Adjustment, Dialect, Written
from tunewright.dialects.document import Document, read_document
from tunewright.dialects.foreign import refuse_foreign
from tunewright.dialects.interpret import Interpretation, interpret
from tunewright.dialects.known import section_names
from tunewright.dialects.native import NATIVE
from tunewright.errors import ConfigError, Problem


@dataclass(frozen=True, slots=True)
class Reading:
    """A run as it was written: its values, where each came from, the vocabulary, and notes worth telling."""

    config: RunConfig
    origins: Mapping[str, Origin]
    dialect: str
    notes: tuple[str, ...] = ()

    @property
    def given(self) -> frozenset[str]:
        """The fields that the user wrote."""
        return frozenset(field for field, origin in self.origins.items() if origin.is_given)

    def resolve(self) -> Reading:
        """The reading with derived values filled in, their origin being the rule that filled them in."""
        config, reasons = derived(self.config)
        origins = {**self.origins, **{field: Origin("rule", reason) for field, reason in reasons.items()}}
        return replace(self, config=config, origins=MappingProxyType(origins))


@dataclass(frozen=True, slots=True)
class Examined:
    """What could be read, and everything wrong with it. `bad`: the fields whose value is not what was written."""

    reading: Reading
    problems: tuple[Problem, ...]
    bad: frozenset[str]


def read_config(
    paths_and_args: Sequence[str], *, dialect: str | None = None, purpose: Purpose | None = None,
) -> Reading:
    """Read configuration files and overrides; a later file overrides an earlier one, the command line overrides both.

    `dialect` (or `--dialect`, or a `dialect:` key) names the vocabulary; otherwise it is recognised. With a `purpose`, what
    that purpose needs is checked too, including the files it names. Raises ConfigError with all problems, each
    `file:line: key: what; mend`; syntax errors, which leave nothing to check, are raised as InputError at once.
    """
    examined = examine(paths_and_args, dialect=dialect, purpose=purpose)
    if examined.problems:
        raise ConfigError(list(examined.problems))
    return examined.reading


def examine(paths_and_args: Sequence[str], *, dialect: str | None = None, purpose: Purpose | None = None) -> Examined:
    """The same without raising for wrong settings: so that what they name can be examined too, and all be reported together.

    A setting that cannot be understood has its default in the reading. Syntax errors are raised.
    """
    arguments = parse_arguments(paths_and_args)
    refuse_bare_names(arguments.files)
    documents = [read_document(path) for path in arguments.files]
    if dialect is None and arguments.dialect is None:
        refuse_foreign(documents)
    in_files = [one for document in documents for one in written_in(document)]
    choice = choose(in_files, arguments.written, dialect or arguments.dialect)
    in_files = [one for one in in_files if one.name != "dialect"]
    return _examined(in_files, arguments.written, choice, Context({}, purpose, arguments.files[0] if arguments.files else None))


def examine_written(settings: Sequence[Written], in_arguments: Sequence[Written], *, place: str) -> Examined:
    """The same of settings in our names that were made from a file of another program."""
    return _examined(list(settings), in_arguments, Choice(NATIVE), Context({}, None, place))


def _examined(
    in_files: list[Written], in_arguments: Sequence[Written], choice: Choice, context: Context,
) -> Examined:
    problems = list(choice.problems)
    merged = _merge(in_files, [*in_environment(os.environ), *in_arguments], problems)
    structure = choice.dialect.restructure(merged)
    found = interpret(structure.values.values(), choice.dialect, ignored=choice.foreign)
    problems += found.problems
    adjusted = {field: one for field, one in choice.dialect.adjust(found.values).items() if field not in found.values}
    config = build({**defaults(choice.dialect.name), **{field: one.value for field, one in adjusted.items()}, **found.values})
    origins = _origins(choice.dialect, found, adjusted)
    findings = checks.findings(config, replace(context, origins=origins), skip=found.bad)
    problems += [finding.problem for finding in findings if finding.is_error]
    vain = (f"{one.name} is set, and has no effect here: {one.instead}" for one in steering_in_vain(os.environ))
    told = (one.note for one in adjusted.values() if one.note is not None)
    broken = (one.problem.line() for one in findings if not one.is_error)
    notes = (*vain, *choice.notes, *structure.notes, *found.notes, *told, *broken)
    reading = Reading(config, MappingProxyType(origins), choice.dialect.name, notes)
    return Examined(reading, tuple(in_order(problems)), frozenset(found.bad))


def written_in(document: Document) -> list[Written]:
    """The settings of a file in order; those below the name of a group, or with it in front of a dot, carry it."""
    found = []
    for key, value in document.values.items():
        if isinstance(value, Mapping) and key.replace("-", "_") in section_names():
            found += [_from_file(document, (key, inner), one) for inner, one in value.items()]
        else:
            found.append(_from_file(document, (key,), value))
    return found


def in_environment(environment: Mapping[str, str]) -> list[Written]:
    """The settings that environment variables give, in our names."""
    return [Written(one.name, one.sets, spelled_here(one, environment[one.name]), "environment", "environment") for one in VARIABLES
            if one.sets and one.sets in table() and environment.get(one.name)]


def _from_file(document: Document, keys: tuple[str, ...], value: Any) -> Written:
    name, group = split_name(".".join(keys))
    return Written(".".join(keys), name, value, document.where(*keys), "file", group)


def _merge(in_files: list[Written], in_arguments: Sequence[Written], problems: list[Problem]) -> dict[str, Written]:
    """The last word on every name. Twice in one file is a problem; files and the command line override in order."""
    merged: dict[str, Written] = {}
    for one in in_files:
        before = merged.get(one.name)
        if before is not None and before.where.rpartition(":")[0] == one.where.rpartition(":")[0]:
            problems.append(Problem(f"{one.key}: given twice, as {before.key} at {before.where} too", where=one.where,
                                    mend="remove one of them"))
        merged[one.name] = one
    return {**merged, **{one.name: one for one in in_arguments}}


def _origins(dialect: Dialect, found: Interpretation, adjusted: Mapping[str, Adjustment]) -> dict[str, Origin]:
    """Where each value comes from, in the order of the table: what was written goes before a rule, and a rule before a default."""
    ruled = {field: Origin("rule", one.why) for field, one in adjusted.items()}
    written = {field: Origin(one.source, one.where, one.key) for field, one in found.sources.items()}
    return {**_of_defaults(dialect.name), **ruled, **written}


@cache
def _of_defaults(dialect: str) -> Mapping[str, Origin]:
    """Where values come from that nobody gave."""
    return MappingProxyType({field: Origin("default") if row.default_in(dialect) == row.param.default
                             else Origin("dialect default", dialect)
                             for field, row in table().items()})


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Without repetitions, by file and line, then those of the command line, then those of the whole."""

    def place(problem: Problem) -> tuple[int, str, int]:
        file, _, line = (problem.where or "").rpartition(":")
        return (0, file, int(line)) if line.isdigit() else (1 if problem.where else 2, "", 0)

    return sorted(dict.fromkeys(problems), key=place)

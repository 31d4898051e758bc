"""What a vocabulary has to offer, and what is written in one. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tunewright.config.origin import Source
from tunewright.config.param import Alias
from tunewright.config.refused.table import refused_in
from tunewright.config.table import Row, names_in


@dataclass(frozen=True, slots=True)
class Written:
    """One value as the user wrote it: `key` in their spelling, `name` with underscores and without its section.

    `field`: the parameter of ours that it is about, where the name says so only together with the value.
    """

    key: str
    name: str
    value: Any
    where: str
    source: Source
    group: str | None = None
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What a vocabulary means by leaving a parameter out next to what was written: the value in our form, why, and a note for
    the user where it is worth telling."""

    value: Any
    why: str
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Restructured:
    """Values whose structure fits the table of names, and notes on what was understood in a way worth telling."""

    values: Mapping[str, Written]
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a name or a value of a vocabulary is not accepted, and what to do."""

    what: str
    mend: str | None


def as_written(values: Mapping[str, Written]) -> Restructured:
    """The values of a vocabulary whose structure is ours."""
    return Restructured(values)


def no_change(given: Mapping[str, Any]) -> Mapping[str, Adjustment]:
    """The defaults of a vocabulary that do not depend on what was written."""
    return {}


@dataclass(frozen=True, slots=True)
class Dialect:
    """A vocabulary as a value: its names and defaults are in the declarations; here is what goes beyond names and defaults.

    `restructure`: values whose structure, not only name or form, differs from ours, brought into ours. `adjust`: from the
    written values by field, the defaults that depend on them. `sections`: name -> the sections of a file that it may stand in, in a
    vocabulary whose files have sections. `usual`: names that only files in this vocabulary usually have, although ours has them
    too; `usual_without`: the same where another name is missing. `convert`: names whose values take more forms than the declaration says.
    """

    name: str
    restructure: Callable[[Mapping[str, Written]], Restructured] = as_written
    adjust: Callable[[Mapping[str, Any]], Mapping[str, Adjustment]] = no_change
    sections: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    usual: tuple[str, ...] = ()
    usual_without: Mapping[str, str] = field(default_factory=dict)
    convert: Mapping[str, str] = field(default_factory=dict)

    def names(self) -> Mapping[str, tuple[Row, Alias]]:
        """Every honoured name with the parameter it stands for."""
        known = names_in(self.name)
        if not self.convert:
            return known
        converted = {name: known[name] for name in self.convert if name in known}
        return {**known, **{name: (row, replace(alias, convert=self.convert[name])) for name, (row, alias) in converted.items()}}

    def refuses(self, name: str) -> bool:
        """Whether the vocabulary has this name, or the one it negates, and it is not honoured."""
        known = refused_in(self.name)
        return name in known or (name.startswith("no_") and name[3:] in known)

    def knows(self, name: str) -> bool:
        """Whether the vocabulary has this name, honoured or not."""
        return name in names_in(self.name) or (name.startswith("no_") and name[3:] in names_in(self.name)) or self.refuses(name)

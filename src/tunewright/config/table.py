"""The flat view of every parameter: `field -> Row`, by any vocabulary's name. Built on first use. Standard library only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tunewright.config.param import DIALECTS, REQUIRED, SAME, Alias, Param
from tunewright.config.run import RunConfig
from tunewright.config.spelling import nearest as nearest

Base = Literal["bool", "int", "float", "str", "names", "numbers", "datasets", "mapping"]

_BASES: Mapping[Any, Base] = {bool: "bool", int: "int", float: "float", str: "str"}

_LISTS: Mapping[Any, Base] = {str: "names", float: "numbers"}

_WORDS: Mapping[Base, str] = {
    "bool": "true or false", "int": "an integer", "float": "a number", "str": "a text", "names": "a list of texts",
    "numbers": "a list of numbers",
    "datasets": "a list of data sets", "mapping": "a mapping",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One parameter: its group, its field, its declaration and its type."""

    group: str
    field: str
    param: Param
    base: Base
    nullable: bool

    @property
    def path(self) -> str:
        """`group.field`."""
        return f"{self.group}.{self.field}"

    @property
    def words(self) -> str:
        """The type in words: `an integer or null`."""
        return _WORDS[self.base] + (" or null" if self.nullable else "")

    def default_in(self, dialect: str) -> Any:
        """The default of `dialect`, in our form; ours where the vocabulary has no name for the parameter and implies nothing."""
        aliases = self.param.names.get(dialect, ())
        if not aliases:
            return self.param.implied.get(dialect, self.param.default)
        return self.param.default if aliases[0].default is SAME else aliases[0].default


@cache
def table() -> Mapping[str, Row]:
    """Every parameter by its field name, in the order of the groups."""
    rows: dict[str, Row] = {}
    for group, kind in group_types().items():
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if field.name in rows:
                raise TypeError(f"{field.name} is declared in {rows[field.name].group} and in {group}")
            base, nullable = _base(hints[field.name])
            rows[field.name] = Row(group, field.name, field.metadata["param"], base, nullable)
    return MappingProxyType(rows)


@cache
def group_types() -> Mapping[str, type[Any]]:
    """The groups of RunConfig by name, in order."""
    hints = get_type_hints(RunConfig)
    return MappingProxyType({field.name: hints[field.name] for field in dataclasses.fields(RunConfig)})


@cache
def names_in(dialect: str) -> Mapping[str, tuple[Row, Alias]]:
    """Every name of a vocabulary with the parameter it stands for; `native` is our own."""
    if dialect == "native":
        return MappingProxyType({field: (row, Alias(field)) for field, row in table().items()})
    found: dict[str, tuple[Row, Alias]] = {}
    for row in table().values():
        for alias in row.param.names.get(dialect, ()):
            if alias.name in found:
                raise TypeError(f"{dialect}: {alias.name} stands for {found[alias.name][0].field} and for {row.field}")
            found[alias.name] = (row, alias)
    return MappingProxyType(found)


def owners(name: str) -> list[tuple[str, Row]]:
    """The vocabularies, ours first, in which `name` is known, each with the parameter it stands for."""
    return [(dialect, names_in(dialect)[name][0]) for dialect in ("native", *DIALECTS) if name in names_in(dialect)]


def values(config: RunConfig) -> dict[str, Any]:
    """Every value of a run by field name."""
    return {name: value for group in group_types() for name, value in vars(vars(config)[group]).items()}


def build(given: Mapping[str, Any]) -> RunConfig:
    """The run with the `given` fields, and our defaults for the others."""
    chosen: dict[str, dict[str, Any]] = {}
    for field, value in given.items():
        chosen.setdefault(table()[field].group, {})[field] = value
    return RunConfig(**{group: group_types()[group](**fields) for group, fields in chosen.items()})


def replace(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """A copy of the run with some fields changed."""
    return build({**values(config), **changes})


@cache
def defaults(dialect: str) -> Mapping[str, Any]:
    """Every default of a vocabulary by field name, in our form."""
    found = {field: row.default_in(dialect) for field, row in table().items()}
    return MappingProxyType({field: value for field, value in found.items() if value is not REQUIRED})


def _base(hint: Any) -> tuple[Base, bool]:
    nullable = False
    if get_origin(hint) in (Union, UnionType):
        inner = [one for one in get_args(hint) if one is not type(None)]
        nullable = len(inner) < len(get_args(hint))
        if len(inner) != 1:
            raise TypeError(f"a parameter has one type, not {hint}")
        hint = inner[0]
    if hint in _BASES:
        return _BASES[hint], nullable
    if get_origin(hint) is tuple:
        return _LISTS.get(get_args(hint)[0], "datasets"), nullable
    return "mapping", nullable

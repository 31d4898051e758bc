"""What a vocabulary has to offer, and what is written in one. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tunewright.config.origin import Source
from tunewright.config.param import Alias
from tunewright.config.table import Row


@dataclass(frozen=True, slots=True)
class Written:
    """One value as the user wrote it: `key` in their spelling, `name` with underscores and without its group."""

    key: str
    name: str
    value: Any
    where: str
    source: Source
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Keys that speak for a vocabulary: no other readable one has the `strong` ones; the `weak` ones are only usual there."""

    strong: tuple[Written, ...] = ()
    weak: tuple[Written, ...] = ()


@dataclass(frozen=True, slots=True)
class Restructured:
    """Values whose structure fits the table of names, and notes on what was understood in a way worth telling."""

    values: Mapping[str, Written]
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a name or a value of a vocabulary is not accepted, and what to do."""

    what: str
    mend: str


class Dialect(Protocol):
    """A vocabulary: pure functions over what was written; the names and defaults are in the declarations."""

    @property
    def name(self) -> str:
        """The identifier, as in `--dialect`."""

    def names(self) -> Mapping[str, tuple[Row, Alias]]:
        """Every name with the parameter it stands for."""

    def recognise(self, written: list[Written]) -> Evidence:
        """What in a file speaks for this vocabulary."""

    def restructure(self, values: Mapping[str, Written]) -> Restructured:
        """Values whose structure, not only name or form, differs from ours, brought into ours."""

    def refusal(self, written: Written) -> Refusal | None:
        """Why a name that is known but not honoured is refused; None if its value changes nothing or the name is unknown."""

    def is_pending(self, name: str) -> bool:
        """Whether the vocabulary has this name, but nothing honours it yet."""

    def value_refusal(self, row: Row, value: Any) -> Refusal | None:
        """Why a value that the vocabulary has is refused; None if it is not one of those."""

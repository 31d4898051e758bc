"""How a key of a foreign program is understood: a name of ours, a value mapped, or something worked out from several keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Meant:
    """One parameter of ours with its value; or, without a name, why the key is none. `label`: the part of the key that is meant."""

    name: str | None
    value: Any = None
    why: str = ""
    is_lost: bool = True
    label: str | None = None


Means = Callable[[Any, Mapping[str, Any]], list[Meant]]
"""From the value of a key and the whole file to what is meant."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A program's keys; its defaults in our names as far as they differ from ours, and remarks on what it does without being told,
    which both may depend on what is written."""

    name: str
    title: str
    article: str
    keys: Mapping[str, str | Means]
    defaults: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    remarks: Callable[[Mapping[str, Any]], tuple[str, ...]] = lambda values: ()

    def names(self) -> frozenset[str]:
        """Every key that is understood."""
        return frozenset(self.keys)

    def meant(self, key: str, values: Mapping[str, Any]) -> list[Meant]:
        """What a key means here; nothing it means is dropped."""
        means, value = self.keys.get(key), values[key]
        if means is None:
            return [empty() if is_empty(value) else Meant(None, why=f"not understood ({self.title}'s, or a misspelling); it is left out")]
        if is_empty(value):
            return [empty()]
        return [Meant(means, value)] if isinstance(means, str) else means(value, values)


def empty() -> Meant:
    """A key without a value."""
    return Meant(None, why="is empty, and is left out", is_lost=False)


def is_empty(value: Any) -> bool:
    """Whether nothing is set: null, an empty text, list or mapping."""
    return value is None or (isinstance(value, str | list | dict) and not value)


def nothing(why: str) -> Means:
    """The key changes nothing of a run here."""
    return lambda value, values: [Meant(None, why=why, is_lost=False)]


def not_here(why: str) -> Means:
    """The key asks for something that is not done here, unless it is off."""
    return lambda value, values: [Meant(None, why="is off, and is left out", is_lost=False) if value is False or value == 0
                                  else Meant(None, why=why)]


def words(name: str, mapped: Mapping[str, Any]) -> Means:
    """Some values have another name here."""
    return lambda value, values: [Meant(name, mapped.get(value, value) if isinstance(value, str) else value)]


def switch(name: str, on: Any) -> Means:
    """True means a value of ours; false means nothing."""
    return lambda value, values: [Meant(name, on) if is_on(value) else Meant(None, why="is off, and is left out", is_lost=False)]


def part_of(other: str) -> Means:
    """The key is read together with another one."""
    return lambda value, values: [Meant(None, why=f"is read together with {other}", is_lost=False)]


def arguments(key: str, known: Mapping[str, str]) -> Means:
    """A mapping of arguments, some of which are parameters of ours."""

    def meant(value: Any, values: Mapping[str, Any]) -> list[Meant]:
        if not isinstance(value, Mapping):
            return [Meant(None, why="not a mapping; it is left out")]
        return [Meant(known[name], one) if name in known else Meant(None, why="not understood; it is left out", label=f"{key}.{name}")
                for name, one in value.items()]

    return meant


def is_on(value: Any) -> bool:
    """Whether a switch is on, as a truth or as its text."""
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")


OPTIMIZERS: Final[Mapping[str, str]] = {"adamw_hf": "adamw_torch", "adamw": "adamw_torch"}
"""Old names of optimizers that the present one replaces without a difference."""

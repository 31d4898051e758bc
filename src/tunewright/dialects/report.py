"""What a conversion has to tell: settings, and one line for each parameter. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Kind = Literal["exact", "renamed", "value mapped", "default made explicit", "no equivalent"]
KINDS: Final[tuple[Kind, ...]] = ("exact", "renamed", "value mapped", "default made explicit", "no equivalent")


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one parameter: `key` is its name in the target, None where it has none.

    `is_lost`: the run that the target describes differs in it.
    """

    field: str
    kind: Kind
    key: str | None
    detail: str
    is_lost: bool = False

    def text(self) -> str:
        """One line of the report."""
        return f"{self.kind}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Translation:
    """Settings in the target vocabulary, in the order of our groups, and the report."""

    dialect: str
    settings: Mapping[str, Any]
    report: tuple[Line, ...]

    @property
    def lost(self) -> tuple[Line, ...]:
        """The lines about what the target cannot say."""
        return tuple(line for line in self.report if line.is_lost)

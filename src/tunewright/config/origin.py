"""Where a value came from. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Source = Literal["default", "dialect default", "file", "environment", "command line", "rule"]


@dataclass(frozen=True, slots=True)
class Origin:
    """The source of a value, in the order of precedence of `Source`; a rule fills in what was left open.

    `where` is `file:line`, `environment`, `command line`, the vocabulary of a dialect default, or the reason of a rule; `key` is the
    name as the user wrote it.
    """

    source: Source
    where: str | None = None
    key: str | None = None

    @property
    def is_given(self) -> bool:
        """Whether the user wrote the value."""
        return self.source in ("file", "environment", "command line")

    def describe(self) -> str:
        """One phrase for people, such as `c.yaml:3 (lora_r)`."""
        match self.source:
            case "default":
                return "default"
            case "dialect default":
                return f"default of {self.where}"
            case "rule":
                return f"derived: {self.where}"
        return f"{self.where} ({self.key})" if self.key else str(self.where)

"""Registry: name -> "module:object", resolved on first use. Standard library only."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tunewright.errors import refuse


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered thing: `target` is "module:object"; `summary` one sentence; `extra` the pip extra that it needs."""

    name: str
    target: str
    summary: str
    extra: str | None = None


class Registry:
    """A literal table of entries, none of which is imported before it is asked for. A second entry of a name is refused."""

    def __init__(self, kind: str, entries: tuple[Entry, ...]) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}
        for entry in entries:
            if entry.name in self._entries:
                raise ValueError(f"the {kind} {entry.name} is registered twice")
            self._entries[entry.name] = entry

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def names(self) -> tuple[str, ...]:
        """Every registered name, in the order of the table."""
        return tuple(self._entries)

    def entry(self, name: str) -> Entry:
        """The entry of that name; raises InputError with the nearest name."""
        if name not in self._entries:
            import difflib

            close = difflib.get_close_matches(name, self._entries, 1)
            hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(self._entries)}"
            refuse(f"'{name}' is not a {self.kind}", mend=hint)
        return self._entries[name]

    def load(self, name: str) -> Any:
        """The object of that name, imported now."""
        module, _, attribute = self.entry(name).target.partition(":")
        return getattr(importlib.import_module(module), attribute)

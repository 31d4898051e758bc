"""Which of LLaMA-Factory's quirks a data set is read with. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tunewright.config.quirks import QUIRKS, READ

_KNOWN: Final = frozenset(quirk.name for quirk in QUIRKS)


class Quirks(frozenset[str]):
    """A set of names of `config.quirks`; asking for a name that is none of them is a mistake in the code that asks."""

    __slots__ = ()

    def __contains__(self, name: object) -> bool:
        if name not in _KNOWN:
            raise KeyError(f"{name} is no quirk")
        return super().__contains__(name)


STRICT: Final = Quirks()
"""None: every quirk is mended."""

COMPAT: Final = Quirks(READ)
"""All that can be had."""


def chosen(words: Iterable[str]) -> Quirks:
    """The quirks that the parameter `data_compat` names: `strict` none, `compat` all that can be had, others each by its name."""
    names = set(words)
    return COMPAT if "compat" in names else Quirks(names - {"strict"})

"""The vocabularies that can be read and written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tunewright.config.param import DIALECTS
from tunewright.config.table import nearest
from tunewright.dialects.dialect import Dialect
from tunewright.dialects.llamafactory import LlamaFactory
from tunewright.dialects.native import Native
from tunewright.errors import refuse

READABLE: Final[Mapping[str, Dialect]] = {"native": Native(), "llamafactory": LlamaFactory()}


def get_dialect(name: str, *, where: str | None = None) -> Dialect:
    """The vocabulary of that name; raises InputError naming those that can be read."""
    if name in READABLE:
        return READABLE[name]
    if name in DIALECTS:
        refuse(f"the vocabulary {name} is not built yet", where=where, mend=f"choose {' or '.join(READABLE)}")
    close = nearest(name, READABLE, 1)
    hint = f"did you mean {close[0]}?" if close else f"choose {' or '.join(READABLE)}"
    refuse(f"'{name}' is not a vocabulary", where=where, mend=hint)

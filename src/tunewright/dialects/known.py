"""The vocabularies that can be read and written."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final

from tunewright.config.table import group_types, nearest
from tunewright.dialects.cli_reference import CLI_REFERENCE
from tunewright.dialects.dialect import Dialect
from tunewright.dialects.llamafactory import LLAMAFACTORY
from tunewright.dialects.mindspeed_fsdp2 import MINDSPEED_FSDP2
from tunewright.dialects.native import NATIVE
from tunewright.dialects.qlora_script import QLORA_SCRIPT
from tunewright.dialects.sft_json import SFT_JSON
from tunewright.errors import refuse

READABLE: Final[Mapping[str, Dialect]] = {
    one.name: one for one in (NATIVE, LLAMAFACTORY, CLI_REFERENCE, SFT_JSON, QLORA_SCRIPT, MINDSPEED_FSDP2)}


@cache
def section_names() -> frozenset[str]:
    """The keys of a file below which settings stand: our groups, and the sections of other vocabularies."""
    theirs = (section for dialect in READABLE.values() for several in dialect.sections.values() for section in several)
    return frozenset((*group_types(), *theirs))


def get_dialect(name: str, *, where: str | None = None) -> Dialect:
    """The vocabulary of that name, with underscores or dashes; raises InputError naming those that can be read."""
    if name.replace("-", "_") in READABLE:
        return READABLE[name.replace("-", "_")]
    close = nearest(name, READABLE, 1)
    hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(READABLE)}"
    refuse(f"'{name}' is not a vocabulary", where=where, mend=hint)

"""`refused()`: the one declaration of a parameter that the vocabularies have and we do not honour. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tunewright.config.param import DIALECTS, NOT_BUILT


@dataclass(frozen=True, slots=True)
class Inert:
    """A refused parameter's name in one vocabulary, with the values at which it may stand: its default there, and others that
    change nothing or say what is always done here. `today`: LLaMA-Factory has the name now, not in the documented release."""

    name: str
    values: tuple[Any, ...]
    deprecated: bool = False
    today: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A parameter that is known and not honoured: what it would do, why it is refused, and what to do instead."""

    concept: str
    meaning: str
    because: str
    mend: str | None
    names: Mapping[str, tuple[Inert, ...]]

    @property
    def is_pending(self) -> bool:
        """Whether it is only not built yet."""
        return self.because == NOT_BUILT


InertNames = Inert | tuple[Inert, ...] | None


def inert(name: str, *values: Any, deprecated: bool = False, today: bool = False) -> Inert:
    """A name and the values at which it is accepted, the documented default first."""
    return Inert(name, values, deprecated, today)


def refused(  # noqa: PLR0913 - one argument per vocabulary, as in param()
    concept: str,
    meaning: str,
    *,
    because: str = NOT_BUILT,
    mend: str | None = None,
    llamafactory: InertNames = None,
    cli_reference: InertNames = None,
    sft_json: InertNames = None,
    qlora_script: InertNames = None,
    mindspeed_fsdp2: InertNames = None,
) -> Refused:
    """Declare one parameter that is refused, except at its inert values. `because` completes "NAME: is refused, because ..."."""
    spoken = dict(zip(DIALECTS, (llamafactory, cli_reference, sft_json, qlora_script, mindspeed_fsdp2), strict=True))
    names = {dialect: given if isinstance(given, tuple) else (given,) for dialect, given in spoken.items() if given is not None}
    return Refused(concept, meaning, because, mend, MappingProxyType(names))

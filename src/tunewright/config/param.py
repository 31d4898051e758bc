"""`param()`: the one declaration of one parameter. Standard library only.

A group is a frozen dataclass whose fields are made by `param`. Command line, schema, documentation, `explain`, `convert`
and the coverage report read these declarations; nothing else lists parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeVar

T = TypeVar("T")


class _Same:
    """The vocabulary has the same default as we have."""

    def __repr__(self) -> str:
        return "SAME"


class _Required:
    """The parameter has no default."""

    def __repr__(self) -> str:
        return "REQUIRED"


NOT_BUILT: Final = "not built yet"
"""Why something is refused that will be built."""

SAME: Final[Any] = _Same()
REQUIRED: Final[Any] = _Required()

DIALECTS: Final = ("llamafactory", "cli_reference", "sft_json", "qlora_script", "mindspeed_fsdp2")


@dataclass(frozen=True, slots=True)
class Alias:
    """A parameter's name in one vocabulary, where its default or the form of its value differ from ours.

    `default`: the vocabulary's default, in *our* form; `SAME` as ours. `convert`: name of a converter in
    `dialects.converters` that takes the vocabulary's value to ours. `deprecated`: accepted with a note. `today`: LLaMA-Factory
    has the name now, not in the release that its document describes. `choices`: the vocabulary's values, in our form, where its
    document closes the list and we have more.
    """

    name: str
    default: Any = SAME
    convert: str | None = None
    deprecated: bool = False
    today: bool = False
    choices: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class Implied:
    """What a vocabulary that has no name for a parameter means by saying nothing, in our form."""

    default: Any


@dataclass(frozen=True, slots=True)
class Param:
    """What a declaration says of one parameter besides its field name and type.

    `names` maps a vocabulary to the parameter's names there, the preferred one first. `minimum`/`maximum` are inclusive,
    `above`/`below` exclusive. `choices` closes the set of values. `refused_values`: values that a vocabulary has and we refuse,
    each with the reason. `only_on`: the hardware or package without which the parameter cannot be honoured. `implied`: the
    defaults of vocabularies that have no name for it.
    """

    default: Any
    meaning: str
    unit: str | None
    choices: tuple[Any, ...] | None
    minimum: float | None
    maximum: float | None
    above: float | None
    below: float | None
    example: str | None
    secret: bool
    recorded: bool
    refused_values: Mapping[str, str]
    only_on: str | None
    names: Mapping[str, tuple[Alias, ...]]
    implied: Mapping[str, Any]


Names = str | Alias | Implied | tuple[str | Alias, ...] | None


def param(  # noqa: PLR0913 - the declaration's vocabulary is the point of this function
    default: T,
    meaning: str,
    *,
    unit: str | None = None,
    choices: tuple[Any, ...] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    example: str | None = None,
    secret: bool = False,
    recorded: bool = True,
    refused_values: Mapping[str, str] | None = None,
    only_on: str | None = None,
    llamafactory: Names = None,
    cli_reference: Names = None,
    sft_json: Names = None,
    qlora_script: Names = None,
    mindspeed_fsdp2: Names = None,
) -> T:
    """Declare one field of a configuration group; typed as the field's own type so that type checkers see through it.

    `recorded=False` marks a parameter that may change freely between a run and its resumption (paths, logging).
    """
    spoken = dict(zip(DIALECTS, (llamafactory, cli_reference, sft_json, qlora_script, mindspeed_fsdp2), strict=True))
    names = {dialect: _aliases(given) for dialect, given in spoken.items() if isinstance(given, str | Alias | tuple)}
    implied = {dialect: given.default for dialect, given in spoken.items() if isinstance(given, Implied)}
    declared = Param(default, meaning, unit, choices, minimum, maximum, above, below, example, secret, recorded,
                     MappingProxyType(refused_values or {}), only_on, MappingProxyType(names), MappingProxyType(implied))
    if default is REQUIRED:
        return field(metadata={"param": declared})  # type: ignore[no-any-return]
    return field(default=default, metadata={"param": declared})


def _aliases(given: str | Alias | tuple[str | Alias, ...]) -> tuple[Alias, ...]:
    several = given if isinstance(given, tuple) else (given,)
    return tuple(Alias(one) if isinstance(one, str) else one for one in several)

"""Why a name or value that a vocabulary has is refused, from the declarations; secrets in places where they do not belong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tunewright.config.literals import read_literal, show, split_commas
from tunewright.config.param import NOT_BUILT
from tunewright.config.refused.declaration import Refused
from tunewright.config.refused.table import refused_in
from tunewright.config.table import Row
from tunewright.dialects.dialect import Dialect, Refusal, Written

TOKEN_VARIABLES: Final[Mapping[str, str]] = {
    "hf_hub_token": "HF_TOKEN", "hub_token": "HF_TOKEN", "push_to_hub_token": "HF_TOKEN", "use_auth_token": "HF_TOKEN",
    "ms_hub_token": "MODELSCOPE_API_TOKEN", "om_hub_token": "OM_HUB_TOKEN",
}
"""Names under which other trainers take a secret, and the environment variable that takes it here."""

_SECRET_WORDS = {"token", "secret", "password", "passwd", "apikey", "credential"}


def name_refusal(written: Written, dialect: Dialect) -> Refusal | None:
    """Why the name is refused; None if it may stand at this value, or is not a refused one."""
    known = refused_in(dialect.name)
    name, value = written.name, written.value
    if name.startswith("no_") and name[3:] in known:
        name, value = name[3:], opposite_of(value)
    if name not in known or any(_equal(value, inert) for inert in known[name][1].values):
        return None
    parameter, inert = known[name]
    leave = f", or leave {name} at {_word(inert.values[0])}" if inert.values else ""
    return Refusal(reason(parameter), parameter.mend or f"remove it{leave}")


def opposite_of(value: Any) -> Any:
    """The other truth, of a truth or of its text; any other value as it is."""
    if isinstance(value, bool):
        return not value
    return {"true": False, "false": True}.get(str(value).strip().lower(), value)


def reason(parameter: Refused) -> str:
    """Why it is not honoured, to stand after its name and a colon."""
    return parameter.because if parameter.is_pending else f"refused: {parameter.because}"


def value_refusal(row: Row, value: Any) -> Refusal | None:
    """Why a value that the vocabularies have is refused; None if it is not one of those."""
    refused = row.param.refused_values
    given = value if isinstance(value, list | tuple) else str(value).split(",")
    found = [str(one).strip() for one in given if str(one).strip() in refused]
    if not found:
        return None
    reason = refused[found[0]]
    what = f"'{found[0]}' is {reason}" if reason == NOT_BUILT else f"'{found[0]}' is refused: {reason}"
    choices = row.param.choices
    return Refusal(what, f"choose one of {', '.join(show(one) for one in choices)}" if choices else "choose another")


def looks_secret(name: str) -> bool:
    """Whether a value under this name, which no vocabulary has, may be a secret that must be neither stored nor shown."""
    words = name.lower().split("_")
    return bool(_SECRET_WORDS & set(words)) or words[-2:] == ["api", "key"]


def _word(value: Any) -> str:
    return "''" if value == "" else show(value)


def _equal(value: Any, inert: Any) -> bool:
    if isinstance(inert, list):
        return _items(value) == tuple(str(one) for one in inert)
    if isinstance(value, str) and not isinstance(inert, str):
        if value.strip().lower() in ("none", "null", ""):
            return inert is None
        try:
            value = read_literal(value.strip().lower() if value.lower() in ("true", "false") else value)
        except ValueError:
            return False
    if isinstance(value, bool) != isinstance(inert, bool):
        return False
    return bool(value == inert) or (inert in (None, "") and value in (None, "", [], {}))


def _items(value: Any) -> tuple[str, ...]:
    """A list as it may be written: itself, a literal, one text with commas, or one value."""
    if isinstance(value, str):
        try:
            found = read_literal(value) if value.lstrip()[:1] == "[" else split_commas(value)
        except ValueError:
            found = split_commas(value)
        value = found
    return tuple(str(one) for one in value) if isinstance(value, list | tuple) else (str(value),)

"""Named converters between a vocabulary's form of a value and ours, each with its inverse. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tunewright.config.coerce import BadValueError
from tunewright.config.literals import read_mapping, show, split_commas

ABSENT: Final = object()
"""What a converter returns for a value that means: not given."""

TRACKERS: Final = ("tensorboard",)
"""The trackers that `report_to: all` stands for."""


@dataclass(frozen=True, slots=True)
class Converter:
    """`ours(value)` takes a vocabulary's value to our form and raises BadValueError; `theirs(value)` goes back."""

    ours: Callable[[Any], Any]
    theirs: Callable[[Any], Any]


def _truth(raw: Any) -> bool:
    if isinstance(raw, str) and raw.strip().lower() in ("true", "false"):
        return raw.strip().lower() == "true"
    if not isinstance(raw, bool):
        raise BadValueError(f"{_quoted(raw)} is not true or false", "write true or false")
    return raw


def _is_null(raw: Any) -> bool:
    return raw is None or (isinstance(raw, str) and raw.strip().lower() in ("null", "none", "~"))


def _quoted(raw: Any) -> str:
    return f"'{raw}'" if isinstance(raw, str) else show(raw)


def _same(raw: Any) -> Any:
    return raw


def _comma_list(raw: Any) -> Any:
    return () if _is_null(raw) or raw == "" else raw


def _comma_text(value: Any) -> Any:
    if not value:
        return None
    if not all(isinstance(one, str) for one in value):
        return list(value)
    text = ",".join(value)
    return text if split_commas(text) == tuple(value) and text[0] not in "[{" else list(value)


def _negate(raw: Any) -> Any:
    return not _truth(raw)


def _mapping(raw: Any) -> Any:
    if _is_null(raw) or raw == "":
        return None
    try:
        return read_mapping(raw) or None
    except ValueError as error:
        raise BadValueError(str(error), "write a mapping, JSON, or key=value pairs with commas") from error


def _null_is(value: Any) -> Converter:
    return Converter(lambda raw: value if _is_null(raw) else raw, _same)


def _resume(absent: str) -> Callable[[Any], Any]:
    def ours(raw: Any) -> Any:
        if _is_null(raw):
            return absent if raw is None else "none"
        if raw is True or raw is False or (isinstance(raw, str) and raw.lower() in ("true", "false")):
            return "auto" if str(raw).lower() == "true" else "none"
        return raw

    return ours


def _trackers(raw: Any) -> Any:
    names = () if _is_null(raw) else split_commas(raw) if isinstance(raw, str) else raw
    if isinstance(names, list | tuple) and list(names) in (["none"], ["all"]):
        return () if list(names) == ["none"] else TRACKERS
    return names


def _adafactor(raw: Any) -> Any:
    return "adafactor" if _truth(raw) else ABSENT


def _reentrant(raw: Any) -> Any:
    given = _mapping(raw)
    if given is None:
        return ABSENT
    if set(given) != {"use_reentrant"}:
        other = sorted(set(given) - {"use_reentrant"})
        raise BadValueError(f"the key '{other[0]}' is not built yet", "give use_reentrant only")
    return given["use_reentrant"]


_ATTENTION = {"eager": "disabled", "sdpa": "sdpa", "flash_attention_2": "fa2"}


def _attention_name(raw: Any) -> Any:
    return _ATTENTION.get(raw, raw) if isinstance(raw, str) else raw


def _attention_text(value: Any) -> Any:
    return {ours: theirs for theirs, ours in _ATTENTION.items()}.get(value, value)


def _attention_switch(raw: Any) -> Any:
    return "fa2" if _truth(raw) else "disabled"


def _optimizer_name(raw: Any) -> Any:
    return "adamw_torch" if raw == "adamw" else raw


CONVERTERS: Final[Mapping[str, Converter]] = {
    "comma_list": Converter(_comma_list, _comma_text),
    "negate": Converter(_negate, lambda value: not value),
    "mapping": Converter(_mapping, lambda value: dict(value) if value else None),
    "null_is_auto": Converter(_null_is("auto").ours, lambda value: None if value == "auto" else value),
    "null_is_false": _null_is(False),
    "null_is_absent": Converter(lambda raw: ABSENT if _is_null(raw) else raw, _same),
    "resume_path": Converter(_resume("auto"), lambda value: None if value == "auto" else False if value == "none" else value),
    "resume_or_none": Converter(_resume("none"), lambda value: None if value == "none" else value),
    "trackers": Converter(_trackers, lambda value: ",".join(value) if value else "none"),
    "adafactor_switch": Converter(_adafactor, lambda value: value == "adafactor"),
    "reentrant_kwargs": Converter(_reentrant, lambda value: {"use_reentrant": value}),
    "attention_name": Converter(_attention_name, _attention_text),
    "attention_switch": Converter(_attention_switch, lambda value: value == "fa2"),
    "optimizer_name": Converter(_optimizer_name, lambda value: "adamw" if value == "adamw_torch" else value),
}

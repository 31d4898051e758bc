"""A value as written -> a value of the declared type, within the declared range. Standard library only."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from tunewright.config.literals import read_literal, read_mapping, show, split_commas
from tunewright.config.spelling import did_you_mean, nearest
from tunewright.config.table import Row

_NUMBER = re.compile(r"[+-]?(\d[\d_]*(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_LEADING_ZERO = re.compile(r"[+-]?0[\d_]+")
_DIGITS = 400
"""Letters of the longest number: no float64 needs more."""
_QUOTED = re.compile(r"[“”„‘’«»]\S*[“”‘’«»]")
_TRUTHS = {"true": True, "false": False}
_NULLS = ("null", "none", "~")


class BadValueError(ValueError):
    """A value of the wrong type or out of range; `what` is wrong, `mend` is what to write instead."""

    def __init__(self, what: str, mend: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.mend = mend


def coerce(row: Row, raw: Any) -> Any:
    """`raw`, as a file or the command line gave it, as a value of the parameter's type within its range.

    Raises `BadValueError`. Texts that spell a number, a truth or null are read as such: YAML 1.1 reads `1e-4` as a text,
    and the command line knows texts only.
    """
    if _is_null(row, raw):
        if row.nullable:
            return None
        raise BadValueError(f"null is not {row.words}", _allowed(row))
    if isinstance(raw, str) and _QUOTED.fullmatch(raw):
        raise BadValueError(f"{raw} stands in typographic quotes, which would be part of it", f"write {raw[1:-1]}")
    value = _READERS[row.base](row, raw)
    _check_choices(row, value)
    _check_range(row, value)
    return value


def _is_null(row: Row, raw: Any) -> bool:
    if raw is None:
        return True
    if not isinstance(raw, str) or raw.strip().lower() not in _NULLS or not row.nullable:
        return False
    choices = row.param.choices
    is_free_text = row.base == "str" and (choices is None or raw.strip().lower() in choices)
    return not is_free_text or raw.strip() in ("null", "~", "None")


def _quoted(raw: Any) -> str:
    text = f"'{raw}'" if isinstance(raw, str) else show(raw)
    return text if len(text) <= 80 else text[:77] + "..."


def _bool(row: Row, raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.strip().lower() in _TRUTHS:
        return _TRUTHS[raw.strip().lower()]
    raise BadValueError(f"{_quoted(raw)} is not {row.words}", "write true or false")


def _number(row: Row, raw: Any) -> float:
    if isinstance(raw, str) and _LEADING_ZERO.fullmatch(raw.strip()):
        raise BadValueError(f"{_quoted(raw)} begins with a zero, by which some readers mean octal", "write it without")
    if isinstance(raw, str) and len(raw) <= _DIGITS and _NUMBER.fullmatch(raw.strip()):
        text = raw.strip().replace("_", "")
        raw = int(text) if text.lstrip("+-").isdigit() else float(text)
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise BadValueError(f"{_quoted(raw)} is not {row.words}", _allowed(row))
    if isinstance(raw, float) and not math.isfinite(raw):
        raise BadValueError(f"{raw} is not a finite number", _allowed(row))
    return raw


def _int(row: Row, raw: Any) -> int:
    number = _number(row, raw)
    if number != int(number):
        raise BadValueError(f"{_quoted(raw)} is not {row.words}", _allowed(row))
    return int(number)


def _float(row: Row, raw: Any) -> float:
    number = _number(row, raw)
    if abs(number) > 1e300:
        raise BadValueError(f"{_quoted(raw)} is not a finite number", _allowed(row))
    return float(number)


def _str(row: Row, raw: Any) -> str:
    if raw is False and "no" in (row.param.choices or ()):
        return "no"  # what YAML makes of the bare word
    if not isinstance(raw, str):
        mend = "put it in quotes" if isinstance(raw, bool | int | float) and not row.param.choices else _allowed(row)
        raise BadValueError(f"{_quoted(raw)} is not {row.words}", mend)
    return raw


def _names(row: Row, raw: Any) -> tuple[str, ...]:
    found = tuple(raw) if isinstance(raw, list | tuple) else _split(raw)
    for one in found:
        if not isinstance(one, str) or not one:
            raise BadValueError(f"{_quoted(one)} is not a text", "write a list of texts, or one text with commas")
    return found


def _numbers(row: Row, raw: Any) -> tuple[float, ...]:
    return tuple(_float(row, one) for one in (raw if isinstance(raw, list | tuple) else _split(raw)))


def _datasets(row: Row, raw: Any) -> tuple[Any, ...]:
    found = (raw,) if isinstance(raw, Mapping) else tuple(raw) if isinstance(raw, list | tuple) else _split(raw)
    if any(isinstance(one, str) for one in found):  # weights among prefixes: 0.3, a, 0.7, b
        found = tuple(show(one) if isinstance(one, int | float) and not isinstance(one, bool) else one for one in found)
    for one in found:
        if not one or not isinstance(one, str | Mapping):
            raise BadValueError(f"{_quoted(one)} is not a data set", "write a name, a file, a folder, or a mapping with file_name")
    return found


def _mapping(row: Row, raw: Any) -> dict[str, Any]:
    try:
        return read_mapping(raw)
    except ValueError as error:
        raise BadValueError(str(error), "write a mapping, JSON, or key=value pairs with commas") from error


def _split(raw: Any) -> tuple[Any, ...]:
    if not isinstance(raw, str):
        return (raw,)
    if raw.lstrip()[:1] in ("[", "{"):
        try:
            found = read_literal(raw)
        except ValueError:
            return split_commas(raw)
        if isinstance(found, dict):
            return (found,)
        if isinstance(found, list | tuple) and all(isinstance(one, str | dict | int | float) for one in found):
            return tuple(found)
    return split_commas(raw)


_READERS: Mapping[str, Callable[[Row, Any], Any]] = {
    "bool": _bool, "int": _int, "float": _float, "str": _str, "names": _names, "numbers": _numbers, "datasets": _datasets,
    "mapping": _mapping,
}


def _check_choices(row: Row, value: Any) -> None:
    choices = row.param.choices
    if choices is None:
        return
    for one in value if isinstance(value, tuple) else (value,):
        if one not in choices:
            close = nearest(one, [choice for choice in choices if isinstance(choice, str)]) if isinstance(one, str) else []
            mend = did_you_mean(close, "'")
            raise BadValueError(f"{_quoted(one)} is not one of {', '.join(show(choice) for choice in choices)}", mend)


def _check_range(row: Row, value: Any) -> None:
    param = row.param
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    fits = (
        (param.minimum is None or value >= param.minimum) and (param.maximum is None or value <= param.maximum)
        and (param.above is None or value > param.above) and (param.below is None or value < param.below)
    )
    if not fits:
        raise BadValueError(f"{show(value)} is out of range", _allowed(row))


def range_of(row: Row) -> str | None:
    """The range in symbols, such as `> 0 and <= 100`; None where there is none."""
    param = row.param
    bounds = ((">=", param.minimum), (">", param.above), ("<=", param.maximum), ("<", param.below))
    return " and ".join(f"{sign} {show(bound)}" for sign, bound in bounds if bound is not None) or None


def _allowed(row: Row) -> str:
    if row.param.choices:
        return f"write one of {', '.join(show(choice) for choice in row.param.choices)}"
    bounds = range_of(row)
    word = row.words.removesuffix(" or null")
    return f"write {word}" + (f" {bounds}" if bounds else "") + (", or null" if row.nullable else "")

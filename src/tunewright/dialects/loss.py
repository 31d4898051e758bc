"""What it changes that a vocabulary has no name for a parameter: one sentence, made from the parameter's meaning."""

from __future__ import annotations

import re
from typing import Any, Final

from tunewright.config.literals import show
from tunewright.config.table import Row

_SENTENCE: Final = re.compile(r"(?<=\w)\.\s+(?=[A-Z])")


def lost(said: str, row: Row, value: Any, there: Any, target: str) -> str:
    """`value`: the run's; `there`: the one that the target has whatever is written."""
    return f"{said} {show(value)} is not known in {target}: {_difference(row, value, there)}"


def misread(said: str, row: Row, value: Any, there: Any, target: str) -> str:
    """The target has the name, but cannot mean this value by it, or not together with the others."""
    return f"{said} {show(value)} cannot be said in {target}: {_difference(row, value, there)}"


def unsaid(said: str, row: Row, value: Any, target: str) -> str:
    """The target does not have the name, and what it does instead is not ours to know."""
    return f"{said} {show(value)} is not in {target}; set it there by hand: {_lowered(row.param.meaning)}"


def does_not_matter(said: str, value: Any, why: str, instead: str | None) -> str:
    """The run never reads the value; `instead`: what is written so that the target does not read it either."""
    return f"{said} {show(value)}: changes nothing, because {why}" + (f"; {instead} is written" if instead else "")


def _difference(row: Row, value: Any, there: Any) -> str:
    meaning = _lowered(row.param.meaning)
    if isinstance(value, bool) and isinstance(there, bool | None):
        return f"there it is {show(there)}, and this is {'done' if there else 'not done'}: {meaning}"
    if there in (None, (), {}, ""):
        return f"there nothing is set for this: {meaning}"
    return f"there it is {show(there)} ({meaning})"


def _lowered(meaning: str) -> str:
    """The first sentence of the meaning inside another: without its full stop, small unless it begins with a name."""
    text = _SENTENCE.split(meaning)[0].rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() or text[1:2] == " " else text

"""Names and values of a vocabulary that nothing honours yet, from a table generated from the ledger.

A pending name is refused with that reason, except at a value at which it changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from tunewright.config.literals import read_literal, show
from tunewright.dialects.dialect import Refusal, Written

TOKEN_VARIABLES: Mapping[str, str] = {
    "hf_hub_token": "HF_TOKEN", "hub_token": "HF_TOKEN", "push_to_hub_token": "HF_TOKEN", "use_auth_token": "HF_TOKEN",
    "ms_hub_token": "MODELSCOPE_API_TOKEN", "om_hub_token": "OM_HUB_TOKEN",
}
"""Names under which other trainers take a secret, and the environment variable that takes it here."""

_SECRET_WORDS = {"token", "secret", "password", "passwd", "apikey", "credential"}


@dataclass(frozen=True, slots=True)
class Pending:
    """The pending names of one vocabulary with the values at which they change nothing, and the pending values."""

    inert: Mapping[str, tuple[Any, ...]]
    areas: Mapping[str, str]
    values: Mapping[str, tuple[str, ...]]

    def refusal(self, written: Written) -> Refusal | None:
        """Why the name is refused; None if its value changes nothing or the name is not pending."""
        name, value = written.name, written.value
        if name not in self.inert and name.startswith("no_") and name[3:] in self.inert:
            name, value = name[3:], not value if isinstance(value, bool) else value
        if name not in self.inert or any(_equal(value, inert) for inert in self.inert[name]):
            return None
        return Refusal(f"not built yet ({self.areas[name]})", f"remove it, or leave {name} at {_word(self.inert[name][0])}")

    def knows(self, name: str) -> bool:
        """Whether `name`, or the name it negates, is pending."""
        return name in self.inert or (name.startswith("no_") and name[3:] in self.inert)


@cache
def load_pending(dialect: str) -> Pending:
    """The table `<dialect>_pending.json` beside this module."""
    text = files("tunewright.dialects").joinpath(f"{dialect}_pending.json").read_text(encoding="utf-8")
    data = json.loads(text)
    return Pending(
        inert={name: tuple(entry["inert"]) for name, entry in data["names"].items()},
        areas={name: entry["area"] for name, entry in data["names"].items()},
        values={name: tuple(values) for name, values in data["values"].items()})


def looks_secret(name: str) -> bool:
    """Whether a value under this name, which no vocabulary has, may be a secret that must be neither stored nor shown."""
    words = name.lower().split("_")
    return bool(_SECRET_WORDS & set(words)) or words[-2:] == ["api", "key"]


def _word(value: Any) -> str:
    return "''" if value == "" else show(value)


def _equal(value: Any, inert: Any) -> bool:
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

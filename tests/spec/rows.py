"""What may become of a sentence of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Breaks:
    """The settings break a rule, which points at one of them; `kept` does not break it. `absent`: the rule asks for a setting."""

    rule: str
    settings: Mapping[str, Any]
    kept: Mapping[str, Any] = field(default_factory=dict)
    absent: bool = False


@dataclass(frozen=True)
class Notes:
    """The settings, and words on the command line, are accepted with a note at `key` (the parameter itself if left out) that says why;
    `kept` gets none."""

    why: str
    settings: Mapping[str, Any]
    kept: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Within:
    """Each of the bad values is refused at the parameter, each of the good ones taken, `beside` other settings."""

    bad: tuple[Any, ...]
    good: tuple[Any, ...]
    beside: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Means:
    """With the settings, our fields have these values."""

    settings: Mapping[str, Any]
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Reports:
    """The settings are refused at `key` (the parameter itself if left out) with these words."""

    what: str
    settings: Mapping[str, Any]
    key: str | None = None


@dataclass(frozen=True)
class Refused:
    """The parameter, or the other one that the sentence is about, is refused at any value but its default: nothing is left to enforce."""

    name: str | None = None


@dataclass(frozen=True)
class Elsewhere:
    """What it says is shown by a test on files or on a run: `file::function`."""

    test: str


@dataclass(frozen=True)
class Fact:
    """It demands nothing of a configuration, for this reason."""

    why: str


Row = Breaks | Notes | Within | Means | Reports | Refused | Elsewhere | Fact


def unread(name: str, value: Any, why: str, beside: Mapping[str, Any] | None = None, kept: Mapping[str, Any] | None = None,
           words: tuple[str, ...] = ()) -> Notes:
    """The value is written beside settings (and words) under which nothing reads it; under `kept`, without the words, it is read."""
    return Notes(f"is not read by this run: {why}", {**(beside or {}), name: value}, {**(kept or {}), name: value}, words=words)

"""What a check is: a promise, and the cases that show it. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from tunewright.registry import Entry, Registry


class Size(StrEnum):
    """How many of its cases a check runs: a few of each kind, or all."""

    SAMPLE = "sample"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case. `said`: in one line, why it did not pass."""

    group: str
    case: str
    passed: bool
    said: str = ""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a check may use: an empty folder of its own, the process that forks runs and kills them (started when it is first asked for),
    and a seed for what it draws."""

    folder: Path
    server: Callable[[], Any]
    seed: int = 0


def _nothing_missing(group: str) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Check:
    """`promise`: the sentence that the cases show. `wanted`: how many cases there are at least in full size. `groups` may run side by side,
    in any order, in processes of their own. `missing`: what this machine lacks for a group, if
    anything."""

    name: str
    promise: str
    wanted: int
    groups: Callable[[Size], Sequence[str]]
    run: Callable[[str, Size, Tools], Iterator[Outcome]]
    missing: Callable[[str], str | None] = _nothing_missing


CHECKS: Final = Registry("check", (
    Entry("kills", "tunewright.selftest.kills:CHECK", "A run killed at any of its file operations goes on to the same end."),
    Entry("power", "tunewright.selftest.power:CHECK", "What a loss of power takes is not missed."),
    Entry("full-disk", "tunewright.selftest.full_disk:CHECK", "A full disk is told with figures, and nothing is lost."),
    Entry("damage", "tunewright.selftest.damage:CHECK", "A damaged checkpoint is named and passed over."),
    Entry("exactness", "tunewright.selftest.exactness:CHECK", "A run stopped after any step goes on bit for bit."),
    Entry("equivalence", "tunewright.selftest.equivalence:CHECK", "However a batch is split or computed, its gradient is the same."),
    Entry("changes", "tunewright.selftest.changes:CHECK", "A run is not gone on with under other settings unsaid."),
    Entry("signals", "tunewright.selftest.signals:CHECK", "Signals that reach ranks at different times stop all at one step."),
    Entry("ranks", "tunewright.selftest.ranks:CHECK", "A lost rank ends the job in time, by name."),
    Entry("workers", "tunewright.selftest.workers:CHECK", "A lost data-loader worker ends the run, with the row it was at."),
    Entry("numbers", "tunewright.selftest.numbers:CHECK", "A step that is not finite is left out, kept and told."),
    Entry("bad-input", "tunewright.selftest.bad_input:CHECK", "A mistake is told in one line, before a model is opened."),
    Entry("secrets", "tunewright.selftest.secrets:CHECK", "No token is in anything that is written or printed."),
    Entry("foreign-code", "tunewright.selftest.foreign_code:CHECK", "No code that came with a model or data is run."),
    Entry("network", "tunewright.selftest.network:CHECK", "Nothing is asked of the network for local files."),
))
"""Name -> a `Check`, in the order of the page."""

"""Everything that was found about the data sets of a run, as one value."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from tunewright.data.audit import Tally
from tunewright.data.doctor.finding import LEVELS, Finding
from tunewright.data.doctor.histogram import Histogram
from tunewright.data.spread import Spread
from tunewright.errors import Problem


@dataclass(frozen=True, slots=True)
class TokenReport:
    """Tokens of one set: lengths of whole rows, trained tokens of rows as they are cut, rows over cutoff_len, rows hardly trained."""

    lengths: Spread
    trained: Spread
    over_cutoff: int
    hardly_trained: int
    length_histogram: Histogram
    trained_histogram: Histogram

    @property
    def trained_fraction(self) -> float:
        """Of all tokens, cut ones included."""
        return self.trained.total / self.lengths.total if self.lengths.total else 0.0

    def to_json(self) -> dict[str, Any]:
        """By name."""
        return {"lengths": self.lengths.to_json(), "trained": self.trained.to_json(), "trained_fraction": self.trained_fraction,
                "over_cutoff": self.over_cutoff, "hardly_trained": self.hardly_trained,
                "length_histogram": self.length_histogram.to_json(), "trained_histogram": self.trained_histogram.to_json()}


@dataclass(frozen=True, slots=True)
class SetReport:
    """One data set: what it is for, how its rows were understood, what became of them, their lengths."""

    name: str
    split: str
    how: str
    tally: Tally
    characters: Spread
    character_histogram: Histogram
    tokens: TokenReport | None

    def to_json(self) -> dict[str, Any]:
        """By name; `tokens` is null without a tokenizer."""
        return {**self.tally.to_json(), "split": self.split, "how": self.how, "characters": self.characters.to_json(),
                "character_histogram": self.character_histogram.to_json(),
                "tokens": None if self.tokens is None else self.tokens.to_json()}

    def lines(self) -> list[str]:
        """The audit's summary, then the lengths."""
        lines = [*self.tally.summary(), f"  characters: {self.characters}"]
        if self.tokens is not None:
            found = self.tokens
            lines += [f"  tokens: {found.lengths}; {found.over_cutoff} rows over cutoff_len",
                      f"  trained tokens: {found.trained.total} of {found.lengths.total} ({found.trained_fraction:.1%}); {found.trained}"]
        return lines

    def more(self) -> list[str]:
        """What else there is to say of it on a page."""
        return []


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """All sets, all findings (worst first), and the problems for which a run would be refused."""

    sets: tuple[SetReport, ...]
    findings: tuple[Finding, ...]
    problems: tuple[Problem, ...]
    cutoff_len: int

    def to_json(self) -> dict[str, Any]:
        """By name."""
        return {"ok": not self.problems, "problems": [one.line() for one in self.problems], "cutoff_len": self.cutoff_len,
                "sets": [one.to_json() for one in self.sets], "findings": [one.to_json() for one in self.findings]}

    def lines(self) -> list[str]:
        """To print: sets, findings, and how many of each level."""
        counts = Counter(one.level for one in self.findings)
        ending = ", ".join(f"{counts[level]} {level}{'s' if counts[level] != 1 else ''}" for level in LEVELS)
        return [*(line for one in self.sets for line in one.lines()), *(one.line() for one in self.findings), ending]


def worst_first(findings: list[Finding]) -> tuple[Finding, ...]:
    """By level, else in the order in which they came."""
    return tuple(sorted(findings, key=lambda one: LEVELS.index(one.level)))

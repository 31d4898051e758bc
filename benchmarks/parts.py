"""What `training.py` does unless it is told otherwise: cases, the sides of each, and rounds; the most telling first."""

from __future__ import annotations

import argparse
from typing import Final, NamedTuple

from sft_rows import KINDS
from sides import OWN, YARDSTICK, sides_of

PRODUCTS: Final = {"lora": 4, "full": 6}
"""Floating-point operations of one token per weight: forward 2, gradient of the activations 2, gradient of the weights 2."""
_START: Final = 14.0
"""Seconds from the start of a side to its first step."""
_SHARE: Final = {OWN: 0.65}
_OTHERS_SHARE: Final = 0.29
"""Parts of the machine's matrix product that sides reach, roughly: only to tell how long a benchmark will take."""
_TOKENS: Final = 191
"""Of a row."""


class Case(NamedTuple):
    """One comparison: kind of rows, what trains, threads."""

    kind: str
    tuning: str
    threads: int

    def __str__(self) -> str:
        return f"{self.kind} {self.tuning}, {self.threads} thread{'s' if self.threads > 1 else ''}"


class Part(NamedTuple):
    """A case, the sides that take part in it, and how often each of them runs."""

    case: Case
    sides: tuple[str, ...]
    rounds: int

    def minutes(self, rows: int, parameters: int, gflop_per_s: float) -> float:
        """Roughly how long it takes, if each run has `rows` rows."""
        operations = 1e-9 * PRODUCTS[self.case.tuning] * parameters * rows * _TOKENS
        speed = gflop_per_s * (1 + 0.7 * (self.case.threads - 1))
        return self.rounds * sum(_START + operations / (speed * _SHARE.get(side, _OTHERS_SHARE)) for side in self.sides) / 60


_MAIN: Final = Case("long-tailed", "lora", 1)
PARTS: Final = (
    Part(_MAIN, sides_of("peers"), 3),
    Part(Case("uniform", "lora", 1), (OWN, YARDSTICK), 2),
    Part(Case("long-tailed", "full", 1), (OWN, YARDSTICK), 2),
    Part(Case("packed", "lora", 1), sides_of("peers"), 1),
    Part(Case("long-tailed", "lora", 2), (OWN, YARDSTICK), 2),
    Part(_MAIN, (OWN, "ms-swift", "litgpt"), 1),
)


def cases_of(words: str) -> tuple[Case, ...]:
    """Cases by their names, separated by commas."""
    found = []
    for word in words.split(","):
        kind, _, rest = word.partition("/")
        tuning, _, threads = rest.partition("/")
        if kind not in KINDS or tuning not in PRODUCTS or not threads.isdigit() or not int(threads):
            raise argparse.ArgumentTypeError(f"{word}: ({' or '.join(KINDS)})/(lora or full)/(number of threads)")
        found.append(Case(kind, tuning, int(threads)))
    return tuple(found)


def parts_of(cases: tuple[Case, ...] | None, sides: tuple[str, ...] | None, rounds: int | None) -> tuple[Part, ...]:
    """The parts that are wished for; what is not given is as in `PARTS`, and for a case that is not there as in the first of them."""
    chosen = cases or tuple(dict.fromkeys(part.case for part in PARTS))
    if sides:
        return tuple(Part(case, sides, rounds or PARTS[0].rounds) for case in chosen)
    found = [part for part in PARTS if part.case in chosen]
    found += [PARTS[0]._replace(case=case) for case in chosen if case not in {part.case for part in PARTS}]
    return tuple(part._replace(rounds=rounds or part.rounds) for part in found)

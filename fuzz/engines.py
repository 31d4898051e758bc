"""Two ways to think of inputs: hypothesis, with edits of good files and values drawn by type; and atheris, led by the code it reaches."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from fuzz.edits import Source, edited
from fuzz.judging import Finding, judged, limit_memory, smaller
from fuzz.target import CORPUS, Target, kept

BATCH: Final = 500
"""Examples that hypothesis draws before it begins anew with the next seed."""
COUNTED: Final = 10.0
"""By so much Python is slower at most while atheris counts the lines that it reaches: an input may take that much longer."""


@dataclass(slots=True)
class Tally:
    """What was tried on one target, and found; `note` is where the input of the moment is written, for a process that dies of it.

    `slower`: by so much the reader is slower than it is without the engine.
    """

    target: Target
    note: Path | None = None
    slower: float = 1.0
    executions: int = 0
    findings: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def attempt(self, content: bytes) -> None:
        """Give one input to the reader; a finding of a new kind is made smaller and kept in the corpus."""
        if self.note is not None:
            self.note.write_bytes(content)
        self.executions += 1
        cpu_s = self.target.cpu_s * self.slower
        found = judged(self.target.one, content, cpu_s)
        if found is None or found.key in self.findings:
            return
        self.findings[found.key] = {}
        content = smaller(self.target.one, content, found, cpu_s)
        self.findings[found.key] = {**asdict(found), "input": _keep(self.target.name, content, found)}


def seeds_of(target: Target) -> list[bytes]:
    """Good inputs, and those that found something once."""
    return [*target.seeds(), *kept(target.name)]


def warmed(target: Target, note: Path | None, slower: float = 1.0) -> Tally:
    """A tally after the seeds, with which everything has been imported; memory is limited from here on."""
    tally = Tally(target, note, slower)
    for seed in seeds_of(target):
        tally.attempt(seed)
    limit_memory()
    return tally


def with_hypothesis(target: Target, seconds: float, seed: int, note: Path | None = None, *, limited: bool = True) -> Tally:
    """Inputs drawn by hypothesis for so many seconds of CPU. `limited`: memory too, for the rest of this process's life."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    tally = warmed(target, note) if limited else Tally(target, note)
    contents = _contents(target)
    end = time.process_time() + seconds
    while time.process_time() < end:

        def attempt(content: bytes) -> None:
            if time.process_time() < end:
                tally.attempt(content)

        settings(max_examples=BATCH, database=None, deadline=None, derandomize=False, phases=(Phase.generate,),
                 suppress_health_check=list(HealthCheck))(seeded(seed)(given(contents)(attempt)))()
        seed += 1
    return tally


def with_atheris(target: Target, seconds: float, seed: int, note: Path | None, report: Callable[[Tally], None]) -> None:
    """Inputs led by coverage, for so many seconds; ends the process. `report` is called at its end."""
    import atheris

    with atheris.instrument_imports(include=["tunewright", "yaml", "jinja2", "csv", "json"]):
        tally = warmed(target, note, COUNTED)
    source = Source(seeds_of(target), target.words)
    inputs = (note or Path()).parent / "seeds"
    inputs.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(source.seeds):
        (inputs / str(number)).write_bytes(content)
    end = time.process_time() + seconds

    def attempt(content: bytes) -> None:
        # atheris has a clock of its own, which does not know how busy the machine is; how long an input takes is judged here.
        signal.setitimer(signal.ITIMER_REAL, 0)
        tally.attempt(content)
        if time.process_time() >= end:
            report(tally)
            os._exit(0)

    def mutated(content: bytes, longest: int, number: int) -> bytes:
        chance = random.Random(number)
        return edited(content, source, chance)[:longest] if chance.random() < 0.5 else bytes(atheris.Mutate(content, longest))

    atheris.Setup([sys.argv[0], f"-seed={seed + 1}", "-max_len=65536", "-rss_limit_mb=0", "-timeout=1200", "-verbosity=0",
                   f"-artifact_prefix={inputs.parent}/", str(inputs)], attempt, custom_mutator=mutated)
    atheris.Fuzz()


def summary(tally: Tally, seconds: float) -> Mapping[str, Any]:
    """The figures of a tally for the record."""
    return {"target": tally.target.name, "reads": tally.target.reads, "executions": tally.executions, "cpu_s": round(seconds, 1),
            "findings": list(tally.findings.values())}


def _contents(target: Target) -> Any:
    """What hypothesis draws: edits of a good file, JSON with the words of the format, words one after the other, noise."""
    from hypothesis import strategies

    seeds = seeds_of(target)
    source = Source(seeds, target.words)
    near = strategies.builds(lambda number, state: edited(seeds[number], source, random.Random(state)),
                             strategies.integers(0, len(seeds) - 1), strategies.integers(0, 2**64 - 1))
    if not target.words:
        return strategies.one_of(near, near, near, strategies.binary(max_size=200))
    names = strategies.one_of(strategies.sampled_from([word.decode() for word in target.words]), strategies.text(max_size=5))
    leaf = strategies.one_of(strategies.none(), strategies.booleans(), strategies.integers(), strategies.floats(), names)
    value = strategies.recursive(leaf, lambda inner: strategies.one_of(
        strategies.lists(inner, max_size=4), strategies.dictionaries(names, inner, max_size=5)), max_leaves=12)
    drawn = strategies.dictionaries(names, value, max_size=6).map(lambda one: json.dumps(one).encode())
    strung = strategies.lists(strategies.one_of(strategies.sampled_from(list(target.words)), strategies.binary(max_size=3)),
                              max_size=20).map(b" ".join)
    return strategies.one_of(near, near, near, drawn, strung)


def _keep(target: str, content: bytes, found: Finding) -> str:
    name = f"{found.kind.replace(' ', '-').lower()}-{sha256(content).hexdigest()[:12]}"
    (CORPUS / target).mkdir(parents=True, exist_ok=True)
    (CORPUS / target / name).write_bytes(content)
    return f"{target}/{name}"

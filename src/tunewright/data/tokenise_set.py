"""One data set from its files, or from the cache, to tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tunewright.data.audit import Note
from tunewright.data.cache import Report, TokenCache, Tokenised
from tunewright.data.encoding import Encoder
from tunewright.data.examples import StoreBuilder
from tunewright.data.fingerprint import fingerprint
from tunewright.data.formats.fields import Outcome, Refusal
from tunewright.data.mixing import sampled_rows
from tunewright.data.records import Origin, Record
from tunewright.data.sources import Settled, outcomes
from tunewright.data.workers import ordered_map
from tunewright.errors import InputError

_CHUNK = 256
"""Records that are encoded together."""

_SAY_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows of a data set are used: `num_samples` random ones, of those the first `max_samples`."""

    num_samples: int | None
    max_samples: int | None
    seed: int

    def of(self, found: Iterator[tuple[Origin, Outcome]]) -> Iterable[tuple[Origin, Outcome]]:
        """The chosen rows; without `num_samples` no more is read than needed."""
        if self.num_samples is None:
            return islice(found, self.max_samples)
        everything = list(found)
        return [everything[row] for row in sampled_rows(len(everything), self.num_samples,
                                                        self.seed)[: self.max_samples]]


@dataclass(frozen=True, slots=True)
class Tokeniser:
    """How data sets become tokens in this run. `settings` are what the tokens depend on, `cache` None for none."""

    encoder: Encoder
    settings: Mapping[str, Any]
    tokenizer_digest: str
    cache: TokenCache | None
    workers: int
    report: Report

    def __call__(self, settled: Settled, choice: Choice) -> Tokenised:
        """Tokens of the chosen rows, in order."""
        files = [str(file.path) for file in settled.source.files]
        if self.cache is None:
            return self._build(settled, choice, files)
        seed = choice.seed if choice.num_samples is not None else None
        settings = {**self.settings, "max_samples": choice.max_samples, "seed of num_samples": seed}
        key = fingerprint(settled, self.tokenizer_digest, settings)
        return self.cache.get(key, files, lambda: self._build(settled, choice, files))

    def _build(self, settled: Settled, choice: Choice, files: list[str]) -> Tokenised:
        """Convert here, encode in the worker processes."""
        notes: list[tuple[int, Note]] = []
        store = StoreBuilder(files)
        converted = _Converted(iter(choice.of(outcomes(settled))), notes)
        progress = Progress(settled.source.name, self.report)
        position = 0
        for encoded in ordered_map(self.encoder, _chunks(converted.records()), self.workers):
            for row in encoded:
                for piece in row.pieces:
                    store.add(piece, row.origin)
                notes += [(converted.numbers[position], note) for note in row.notes]
                position += 1
            progress.at(position)
        if converted.rows == 0:
            raise InputError("the data set holds no rows", where=settled.source.name)
        return Tokenised(store.build(), converted.rows,
                         tuple(note for _, note in sorted(notes, key=lambda one: one[0])))


class Progress:
    """Says every ten seconds how far the tokenisation of a large data set is."""

    def __init__(self, name: str, report: Report, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._report = report
        self._clock = clock
        self._begin = self._said = clock()

    def at(self, rows: int) -> None:
        """`rows` are done."""
        now = self._clock()
        if now - self._said >= _SAY_EVERY_S:
            self._said = now
            self._report(f"{self._name}: {rows} rows tokenised, {rows / (now - self._begin):.0f} rows/s")


class _Converted:
    """The records among `found`; notes of the others, by the number of the row, go to `notes`."""

    def __init__(self, found: Iterator[tuple[Origin, Outcome]], notes: list[tuple[int, Note]]) -> None:
        self._found = found
        self._notes = notes
        self.rows = 0
        self.numbers: list[int] = []

    def records(self) -> Iterator[Record]:
        for number, (origin, outcome) in enumerate(self._found):
            self.rows = number + 1
            if isinstance(outcome, Refusal):
                self._notes.append((number, Note(origin, "dropped", outcome.reason, outcome.detail)))
                continue
            self._notes += [(number, Note(origin, "changed", change)) for change in outcome.changes]
            self.numbers.append(number)
            yield outcome.record


def _chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    while chunk := list(islice(records, _CHUNK)):
        yield chunk

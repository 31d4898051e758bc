"""Reads the data sets of a run once, row by row, and asks every check about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from tunewright.config.data import DatasetSpec, named_sets
from tunewright.config.run import RunConfig
from tunewright.data.audit import Note, Tally, note_line
from tunewright.data.doctor import answers, duplicates, lengths, secrets, texts
from tunewright.data.doctor.finding import Finding
from tunewright.data.doctor.frame import Frame, FrameBuilder
from tunewright.data.doctor.histogram import histogram
from tunewright.data.doctor.labels import Labels, Pairs
from tunewright.data.doctor.measure import Measurer
from tunewright.data.doctor.refused_rows import RefusedRows
from tunewright.data.doctor.report import DoctorReport, SetReport, TokenReport, worst_first
from tunewright.data.doctor.row_checks import RowChecks
from tunewright.data.doctor.seen import Seen
from tunewright.data.encoding import RowEncoder
from tunewright.data.formats.convert import convert, detect
from tunewright.data.formats.fields import Refusal
from tunewright.data.formats.layout import OPTIONAL_COLUMNS, Kind
from tunewright.data.json_rows import Row
from tunewright.data.quirks import chosen
from tunewright.data.records import Origin, Record
from tunewright.data.sources import Settled, Source, fetched, first_rows, locate, named, rows, settle
from tunewright.data.spread import Spread
from tunewright.data.tokenise_set import Progress
from tunewright.data.workers import ordered_map
from tunewright.errors import InputError, Problem, StorageError

_CHUNK = 256
_TOLD_ERRORS = 5
_OF_A_STREAM = 100_000
_STAGES: Mapping[Kind, str] = {"text": "pt", "preference": "dpo", "feedback": "kto", "prompt": "ppo"}
_UNREADABLE = "cannot be read"

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Tokens:
    """How rows become tokens: the run's own encoder, and the control tokens of its tokenizer and template."""

    encoder: RowEncoder
    literals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to examine. Without `tokens` only rows are looked at. `audit` gets a line (of a JSON-lines file) for every row that is dropped
    or changed, `report` what is worth telling on the way; of each set the `first` rows, None for all, and the first 100,000 of a
    stream's."""

    run: RunConfig
    tokens: Tokens | None
    fewest_trained: int
    audit: Callable[[str], object]
    report: Report
    first: int | None = None


@dataclass(frozen=True, slots=True)
class _Set:
    """A data set that is examined, under a name that no other has."""

    name: str
    split: str
    settled: Settled
    tally: Tally


def examine(plan: Plan) -> DoctorReport:
    """Everything that is found. What cannot be read at all becomes a problem of the report; nothing is raised for it."""
    examination = _Examination(plan)
    for key, split in (("dataset", "train"), ("eval_dataset", "eval")):
        for _, spec in named_sets(plan.run.data.dataset if key == "dataset" else plan.run.data.eval_dataset):
            examination.read(spec, key, split)
    return examination.report()


def stage_of(spec: DatasetSpec, run: RunConfig) -> str:
    """The stage that could train on a data set, by its first row."""
    source = _located(spec, run, "dataset")
    first = next(first_rows(source.files[0]), None)
    layout = source.layout or (detect(first.values) if first is not None else None)
    return _STAGES.get(layout.kind, "sft") if layout is not None else "sft"


def _located(spec: DatasetSpec, run: RunConfig, key: str) -> Source:
    """The data set with its files here. A table is read as it is: nothing is written beside it."""
    return fetched(locate(spec, run.data.dataset_dir, key=key, quirks=chosen(run.data.data_compat)), key)


class _Examination:
    """One pass over all sets."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._frame = FrameBuilder()
        literals = plan.tokens.literals if plan.tokens is not None else ()
        self._checks = RowChecks((texts.control_tokens(literals), *texts.CHECKS, *secrets.CHECKS, *answers.CHECKS))
        self._labels, self._pairs, self._refused = Labels(), Pairs(), RefusedRows()
        self._sets: list[_Set] = []
        self._problems: list[Problem] = []
        self._begun: dict[str, int] = {}

    def read(self, spec: DatasetSpec, key: str, split: str) -> None:
        """Examine one data set."""
        data = self._plan.run.data
        try:
            settled = settle(named(_located(spec, self._plan.run, key), data.columns()), self._plan.run.run.stage)
        except (InputError, StorageError) as error:
            self._problems.append(_problem(error))
            return
        name = self._fresh(settled.source.name, split)
        one = _Set(name, split, settled, Tally(name))
        self._sets.append(one)
        self._plan.report(settled.line)
        self._measure(one)
        if any(problem.rule == one.name for problem in self._problems):
            return
        try:
            one.tally.check(data.max_dropped_fraction)
        except InputError as error:
            self._problems.append(_problem(error))

    def report(self) -> DoctorReport:
        """What was found in all sets that were read."""
        frame = self._frame.build()
        counts = {one.name: one.tally.rows for one in self._sets}
        found = [*self._refused.findings(counts), *self._checks.findings(counts), *self._labels.findings(),
                 *self._pairs.findings(), *self._of_sets(frame)]
        return DoctorReport(tuple(self._set_report(one, frame) for one in self._sets), worst_first(found), tuple(self._problems),
                            self._plan.run.data.cutoff_len)

    def _of_sets(self, frame: Frame) -> list[Finding]:
        data, found = self._plan.run.data, []
        training, evaluation = ([one.name for one in self._sets if one.split == split] for split in ("train", "eval"))
        for name in (*training, *evaluation):
            found += duplicates.duplicates(frame, name) + duplicates.conflicts(frame, name) + duplicates.repeated_answers(frame, name)
            found += lengths.outliers(frame, name)
            if self._plan.tokens is not None:
                found += lengths.cut(frame, name, data.cutoff_len) + lengths.hardly_trained(frame, name, self._plan.fewest_trained)
        found += duplicates.leakage(frame, training, evaluation)
        return found + (duplicates.split_twins(frame, training) if data.val_size else [])

    def _set_report(self, one: _Set, frame: Frame) -> SetReport:
        mine = frame.of(one.name)
        characters = frame.characters[mine]
        how = one.settled.line + (f"; {_begun(self._begun[one.name])}" if one.name in self._begun else "")
        return SetReport(one.name, one.split, how, one.tally, Spread.of(characters), histogram(characters),
                         self._token_report(frame, mine) if self._plan.tokens is not None else None)

    def _token_report(self, frame: Frame, mine: np.ndarray) -> TokenReport:
        tokens, trained = frame.tokens[mine], frame.trained[mine]
        over = int((tokens > self._plan.run.data.cutoff_len).sum())
        few = int(((trained > 0) & (trained < self._plan.fewest_trained)).sum())
        return TokenReport(Spread.of(tokens), Spread.of(trained), over, few, histogram(tokens), histogram(trained))

    def _measure(self, one: _Set) -> None:
        """Draw all rows of a set through the checks, and their records through the encoder."""
        records = self._records(one)
        if self._plan.tokens is None:
            for _ in records:
                pass
            return
        workers = self._plan.run.data.preprocessing_num_workers or 1
        for measures in ordered_map(Measurer(self._plan.tokens.encoder), _chunks(records), workers):
            for measure in measures:
                self._frame.measured(measure.tokens, measure.trained)
                for note in measure.notes:
                    self._note(one, note)
                if measure.error is not None:
                    self._unreadable(one, measure.origin, measure.error)

    def _records(self, one: _Set) -> Iterator[Record]:
        """The records of a set, each seen by every check. An error that ends the file becomes a problem, so that what was read counts."""
        wanted = {key: one.settled.layout.columns[key] for key in one.settled.layout.given if key in OPTIONAL_COLUMNS}
        progress = Progress(one.name, self._plan.report, done="examined")
        try:
            for row in self._rows(one):
                one.tally.rows += 1
                wanted = {key: name for key, name in wanted.items() if name not in row.values} if wanted else wanted
                record = self._record(one, row)
                if record is not None:
                    yield record
                if one.tally.rows % _CHUNK == 0:
                    progress.at(one.tally.rows)
        except (InputError, StorageError) as error:
            self._problems.append(_problem(error, rule=one.name))
        self._problems += [Problem(f"columns.{key}: no row has the column `{name}`", one.name, "correct or remove it", one.name)
                           for key, name in wanted.items() if one.tally.rows and one.name not in self._begun]

    def _rows(self, one: _Set) -> Iterator[Row]:
        """The rows that the run would use; where it draws some at random, all. No more than are to be looked at: of a set that has more,
        this is noted."""
        data, source = self._plan.run.data, one.settled.source
        found = islice(rows(source), data.max_samples if source.num_samples is None else None)
        is_stream = data.streaming and one.split == "train"
        most = _OF_A_STREAM if is_stream and self._plan.first is None else self._plan.first
        yield from islice(found, most)
        if most is not None and next(found, None) is not None:
            self._begun[one.name] = most
            self._plan.report(f"{one.name}: {_begun(most)}")

    def _record(self, one: _Set, row: Row) -> Record | None:
        """The record of a row after every check has seen it, or None if it has none."""
        try:
            outcome = convert(row, one.settled.layout)
        except InputError as error:
            self._unreadable(one, row.origin, error)
            return None
        if isinstance(outcome, Refusal):
            self._note(one, Note(row.origin, "dropped", outcome.reason, outcome.detail))
            return None
        for change in outcome.changes:
            self._note(one, Note(row.origin, "changed", change))
        seen = Seen(one.name, row.origin, row.values, outcome.record)
        self._checks.observe(seen)
        self._labels.observe(seen)
        self._pairs.observe(seen)
        self._frame.add(seen)
        return outcome.record

    def _note(self, one: _Set, note: Note) -> None:
        self._refused.note(one.name, note)
        self._count(one, note)

    def _unreadable(self, one: _Set, origin: Origin, error: InputError) -> None:
        """A row at which a run would stop: a problem, as long as there are few, and in the audit."""
        if sum(problem.rule == one.name for problem in self._problems) < _TOLD_ERRORS:
            self._problems.append(_problem(error, rule=one.name))
        self._refused.error(one.name, origin, error)
        self._count(one, Note(origin, "dropped", _UNREADABLE, error.message))

    def _count(self, one: _Set, note: Note) -> None:
        one.tally.add(note)
        self._plan.audit(note_line(one.name, note))

    def _fresh(self, name: str, split: str) -> str:
        """The name of a set, told apart from one that was read before."""
        taken = {one.name for one in self._sets}
        number = 2
        fresh = name if name not in taken else f"{name} ({split})"
        while fresh in taken:
            fresh, number = f"{name} ({split} {number})", number + 1
        return fresh


def _begun(most: int) -> str:
    return f"only its first {most} rows are looked at; --first names another number"


def _problem(error: InputError | StorageError, rule: str | None = None) -> Problem:
    return Problem(error.message, error.where, error.mend, rule)


def _chunks(records: Iterator[Record]) -> Iterator[Sequence[Record]]:
    while chunk := list(islice(records, _CHUNK)):
        yield chunk

"""Looks through Megatron's files of tokens: documents, their lengths, the parts of `split`, what ends them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from tunewright.config.run import RunConfig
from tunewright.data.audit import Tally, note_line
from tunewright.data.doctor.finding import Finding, Sightings
from tunewright.data.doctor.histogram import histogram
from tunewright.data.doctor.report import DoctorReport, SetReport, TokenReport, worst_first
from tunewright.data.megatron.probe import probe
from tunewright.data.megatron.sets import OpenSet, Weighed, demand_vocabulary, open_set, parts_of, weighed
from tunewright.data.records import Origin
from tunewright.data.spread import Spread
from tunewright.errors import InputError, Problem, StorageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_UNNAMED: Final = "put the documents into the index, or write both files anew, if they are meant to be read"
_NO_END: Final = "write them anew with an end (tunewright data megatron does), unless they go on in the next document"


class Vocabulary(NamedTuple):
    """What the tokenizer says of ids: how many there are, and the one that ends a document, None if it has none."""

    size: int
    end: int | None


@dataclass(frozen=True, slots=True)
class TokenFileReport(SetReport):
    """A pair of files. `parts`: name, documents and tokens of each part of `split`."""

    parts: tuple[tuple[str, int, int], ...] = ()

    def lines(self) -> list[str]:
        """Documents, their lengths, and the parts."""
        found = [line.replace(" rows used", " documents used") for line in self.tally.summary()]
        if self.tokens is not None:
            lengths, longer = self.tokens.lengths, self.tokens.over_cutoff
            found.append(f"  tokens: {lengths.total}; of a document {lengths}; {longer} over cutoff_len, which go on in further sequences")
        return [*found, *(f"  {line}" for line in self.more())]

    def more(self) -> list[str]:
        """A line for each part."""
        return [f"{name}: {documents} documents, {tokens} tokens" for name, documents, tokens in self.parts]

    def to_json(self) -> dict[str, Any]:
        """By name, with the parts."""
        parts = {name: {"documents": documents, "tokens": tokens} for name, documents, tokens in self.parts}
        return {**SetReport.to_json(self), "parts": parts}


def examine_token_files(run: RunConfig, vocabulary: Vocabulary | None, fewest_trained: int,
                        audit: Callable[[str], object], report: Callable[[str], None]) -> DoctorReport:
    """Everything that is found in the sets of `run`, whose data_manager_type is mg. Without `vocabulary` ids are not judged.

    What a run would be refused for becomes a problem of the report; nothing is raised for it.
    """
    problems = probe(run)
    sets: list[SetReport] = []
    findings: list[Finding] = []
    for key, split in (("dataset", "train"), ("eval_dataset", "eval")):
        for opened in _opened(run, key):
            sets.append(_set_report(run, opened, split, fewest_trained))
            report(sets[-1].how)
            for note in opened.audit().notes:
                audit(note_line(opened.name, note))
            findings += _findings(opened, vocabulary)
            try:
                if vocabulary is not None:
                    demand_vocabulary(opened, vocabulary.size)
            except InputError as error:
                problems.append(Problem(error.message, error.where, error.mend))
    return DoctorReport(tuple(sets), worst_first(findings), tuple(problems), run.data.cutoff_len)


def _opened(run: RunConfig, key: str) -> Iterator[OpenSet]:
    """Every set that can be opened; the others are problems of the probe."""
    specs = run.data.dataset if key == "dataset" else run.data.eval_dataset
    try:
        named: list[Weighed] = weighed(specs, key)
    except InputError:
        return
    for one in named:
        try:
            yield open_set(one, run.data, key)
        except (InputError, StorageError):
            continue


def _set_report(run: RunConfig, opened: OpenSet, split: str, fewest_trained: int) -> TokenFileReport:
    tokens, sizes = opened.tokens, opened.sizes()
    tally = Tally(opened.name, opened.documents)
    for note in opened.audit().notes:
        tally.add(note)
    used = "" if opened.documents == tokens.num_documents else f", the first {opened.documents} of {tokens.num_documents} documents"
    how = f"{opened.name}: Megatron's format, tokens of {tokens.dtype.name}{used}"
    counted = sizes[sizes > 0]
    trained = counted - 1
    found = TokenReport(Spread.of(counted), Spread.of(trained), int((counted > run.data.cutoff_len).sum()),
                        int(((trained > 0) & (trained < fewest_trained)).sum()), histogram(counted), histogram(trained))
    parts = _parts(opened, run, sizes) if split == "train" else ()
    return TokenFileReport(opened.name, split, how, tally, Spread.of(counted[:0]), histogram(counted[:0]), found, parts)


def _parts(opened: OpenSet, run: RunConfig, sizes: NDArray[np.int64]) -> tuple[tuple[str, int, int], ...]:
    try:
        parts = parts_of(opened, run.data.split)
    except ValueError:  # a rule of the configuration, told before
        return ()
    return tuple((name, len(part), int(sizes[part.start : part.stop].sum())) for name, part in parts._asdict().items() if len(part))


def _findings(opened: OpenSet, vocabulary: Vocabulary | None) -> list[Finding]:
    """What looks wrong, and does not stop a run."""
    tokens, name, found = opened.tokens, opened.name, []
    empty = _sightings(opened, np.flatnonzero(opened.sizes() == 0))
    if empty.count:
        found.append(_finding("dropped-row", name, f"{empty.count} of {opened.documents} documents hold no token", "take them out", empty))
    if tokens.unnamed_tokens:
        found.append(Finding("unread-tokens", "warning", name, f"{tokens.unnamed_tokens} tokens of {tokens.file} are in no document",
                             _UNNAMED, tokens.unnamed_tokens))
    if vocabulary is not None and vocabulary.end is not None:
        open_ended = _sightings(opened, _without_end(opened, vocabulary.end))
        if open_ended.count:
            found.append(_finding("no-end", name, f"{open_ended.count} of {opened.documents} documents do not end with the tokenizer's "
                                  f"end-of-text token {vocabulary.end}", _NO_END, open_ended))
    return found


def _without_end(opened: OpenSet, end: int) -> NDArray[np.intp]:
    """The documents that hold tokens, the last of which is another."""
    tokens, sizes = opened.tokens, opened.sizes()
    filled = tokens.lengths > 0
    last_filled = np.maximum.accumulate(np.where(filled, np.arange(len(filled)), -1))
    documents = np.flatnonzero(sizes > 0)
    sequences = last_filled[tokens.documents[documents + 1] - 1]
    places = tokens.starts[sequences] + tokens.lengths[sequences] - 1
    return documents[np.asarray(tokens.tokens[places]).astype(np.int64) != end]


def _sightings(opened: OpenSet, documents: NDArray[np.intp]) -> Sightings:
    found = Sightings(count=max(0, len(documents) - 20))
    for document in documents[:20].tolist():
        found.add(Origin(opened.tokens.file, document))
    return found


def _finding(check: str, name: str, what: str, mend: str, seen: Sightings) -> Finding:
    return Finding(check, "warning", name, what, mend, seen.count, tuple(seen.places))

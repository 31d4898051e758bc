"""Documents of any source to Megatron's token files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from tunewright.config.run import RunConfig
from tunewright.data.audit import Audit, Note, SetAudit
from tunewright.data.chunks import Choice
from tunewright.data.draws import Draws
from tunewright.data.formats.fields import Outcome, Refusal
from tunewright.data.megatron.layout import smallest_dtype
from tunewright.data.megatron.writer import IndexedWriter
from tunewright.data.records import Origin, Text
from tunewright.data.sources import Settled, outcomes, settle, source_of
from tunewright.data.tokenise_set import Progress
from tunewright.data.tokenize import encode_texts
from tunewright.data.workers import ordered_map
from tunewright.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

_CHUNK: Final = 256

Report = Callable[[str], None]
Encode = Callable[[Iterator[list[str]]], Iterator[list["NDArray[Any]"]]]


class Written(NamedTuple):
    """What was written, what became of every row, and how long it took."""

    documents: int
    tokens: int
    dtype: np.dtype[Any]
    audit: Audit
    took_s: float


def write_documents(run: RunConfig, tokenizer: PreTrainedTokenizerBase, prefix: Path, report: Report) -> Written:
    """The documents of all sets of `dataset`, one after the other, as PREFIX.bin and PREFIX.idx, in constant memory.

    A document is what `stage: pt` trains on: a BOS token if the tokenizer adds one, the text, one EOS token; nothing is cut.
    `max_samples` and `preprocessing_num_workers` are read as in training. After an error nothing is left.
    """
    began = time.monotonic()
    data = run.data
    settled = [settle(source_of(spec, data, "dataset", report), "pt") for spec in data.dataset]
    for one in settled:
        report(one.line)
    dtype = smallest_dtype(len(tokenizer))
    encode = partial(_encoded, tokenizer=tokenizer, dtype=dtype)
    draws = Draws(run)
    audits: list[SetAudit] = []
    with IndexedWriter(prefix, dtype) as writer:
        for one in settled:
            audits.append(_write_set(
                one, draws.choice(one), lambda texts: ordered_map(encode, texts, data.preprocessing_num_workers or 1), writer, report))
            for line in audits[-1].summary():
                report(line)
            audits[-1].check(data.max_dropped_fraction)
        if not writer.num_documents:
            raise InputError("the data sets hold no documents", where=", ".join(one.source.name for one in settled))
    return Written(writer.num_documents, writer.num_tokens, dtype, Audit(tuple(audits)), time.monotonic() - began)


def _write_set(settled: Settled, choice: Choice, encode: Encode, writer: IndexedWriter, report: Report) -> SetAudit:
    texts = _Texts(iter(choice.of(outcomes(settled))))
    progress, done = Progress(settled.source.name, report), 0
    for documents in encode(texts.chunks()):
        for ids in documents:
            writer.add(ids)
        done += len(documents)
        progress.at(done)
    if not texts.rows:
        raise InputError("the data set holds no rows", where=settled.source.name)
    return SetAudit(settled.source.name, texts.rows, tuple(texts.notes))


class _Texts:
    """The documents among the rows; what became of the others is in `notes`."""

    def __init__(self, found: Iterator[tuple[Origin, Outcome]]) -> None:
        self._found = found
        self.rows = 0
        self.notes: list[Note] = []

    def chunks(self) -> Iterator[list[str]]:
        texts = self._texts()
        while chunk := list(islice(texts, _CHUNK)):
            yield chunk

    def _texts(self) -> Iterator[str]:
        for origin, outcome in self._found:
            self.rows += 1
            if isinstance(outcome, Refusal):
                self.notes.append(Note(origin, "dropped", outcome.reason, outcome.detail))
                continue
            self.notes += [Note(origin, "changed", change) for change in outcome.changes]
            if not isinstance(outcome.record, Text):
                raise InputError("the row is not a document", where=str(origin))
            yield outcome.record.text


def _encoded(texts: Sequence[str], *, tokenizer: PreTrainedTokenizerBase, dtype: np.dtype[Any]) -> list[NDArray[Any]]:
    return [np.array(ids, dtype) for ids, _ in encode_texts(texts, tokenizer)]

"""The stream of a run, and the rows that are held out of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from tunewright.config.derive import data_seed
from tunewright.config.run import RunConfig
from tunewright.data.audit import SetAudit
from tunewright.data.encoding import RowEncoder
from tunewright.data.examples import ExampleSet
from tunewright.data.files import DataFile
from tunewright.data.mixing import demand_probabilities
from tunewright.data.sources import Settled
from tunewright.data.stage_layout import rows_each
from tunewright.data.streaming.order import RawSet, StreamOrder
from tunewright.data.streaming.raw import RawRow, is_lines
from tunewright.data.streaming.rows import RowMaker, StreamedFile
from tunewright.data.streaming.stream import Stream, example_set
from tunewright.errors import InputError

HELD_OUT = "held out"
"""Name of the held-out rows in the audit."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """How rows become tokens: the encoder, a digest of all that its work depends on, and the model's vocabulary, None if unknown."""

    encoder: RowEncoder
    settings: str
    vocab_size: int | None


class Opened(NamedTuple):
    """The stream, and the rows held out of it with their audit, None where there are none."""

    stream: Stream
    held_out: ExampleSet | None
    audit: SetAudit | None


def open_stream(run: RunConfig, sets: Sequence[Settled], tokens: Tokens, capacity: int | None, report: Callable[[str], None]) -> Opened:
    """The training rows of `run` as a stream, in sequences of `capacity` tokens if that is given. Reads the rows that are held out."""
    files = tuple(StreamedFile(file, one.source.name, one.layout) for one in sets for file in one.source.files)
    for one in sets:
        _demand_streamable(one)
    for file in files:
        if not is_lines(file.file) and file.file.kind == "json":
            report(f"{file.file.path} is one JSON array, which is read whole; JSONL is read line by line")
    stream = Stream(_order(run, sets, [file.file for file in files]), RowMaker(files, tokens.encoder, tokens.vocab_size), capacity,
                    tokens.settings, rows_each=rows_each(run.run.stage))
    if run.run.do_train:
        mixed = "" if len(sets) == 1 else f" of {len(sets)} data sets ({run.data.mix_strategy})"
        report(f"train: a stream{mixed} from {len(files)} files, shuffled {run.data.buffer_size} rows at a time"
               if stream.order.shuffled else f"train: a stream{mixed} from {len(files)} files, in their order")
    return _hold_out(stream, int(run.data.val_size), run.data.max_dropped_fraction) if run.data.val_size else Opened(stream, None, None)


def _order(run: RunConfig, sets: Sequence[Settled], files: Sequence[DataFile]) -> StreamOrder:
    data, raw_sets, first = run.data, [], 0
    for one in sets:
        raw_sets.append(RawSet(one.source.files, first, data.max_samples))
        first += len(one.source.files)
    if data.interleave_probs:
        demand_probabilities(data.interleave_probs, len(sets))
    first_of: dict[Path, int] = {}
    return StreamOrder(
        tuple(raw_sets), data.mix_strategy, data.interleave_probs, data.buffer_size,
        data_seed(run), not run.batching.disable_shuffling,
        tuple(first_of.setdefault(file.path, number) for number, file in enumerate(files)))


def _demand_streamable(one: Settled) -> None:
    if one.source.num_samples is not None:
        raise InputError(f"{one.source.name}: num_samples draws from all rows of a set, but streaming is on",
                         mend="take num_samples out, or set max_samples or streaming: false")


def _hold_out(stream: Stream, number: int, max_dropped_fraction: float) -> Opened:
    """The first rows of the shuffled stream, which are then in no epoch of it, however often their set is read."""
    order = stream.order
    rows: dict[tuple[int, int], RawRow] = {}
    for raw in order.slots(0, 0):
        rows.setdefault((order.same_file[raw.file], raw.row), raw)
        if len(rows) == number:
            break
    rest = replace(stream, order=replace(order, held_out=frozenset(rows)))
    if len(rows) < number or next(rest.order.slots(0, 0), None) is None:
        raise InputError(f"val_size: {number} holds out {len(rows)} rows and leaves none to train on", mend="make it smaller")
    made = stream.rows(list(rows.values()))
    audit = SetAudit(HELD_OUT, len(made), tuple(note for one in made for note in one.notes))
    audit.check(max_dropped_fraction)
    return Opened(rest, example_set(made, stream), audit)

"""The training and evaluation sets of a run on Megatron's files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tunewright.config.data import DataConfig, DatasetSpec
from tunewright.config.derive import data_seed
from tunewright.config.proportions import PARTS, read_proportions
from tunewright.config.run import RunConfig
from tunewright.data.audit import Audit
from tunewright.data.examples import PreparedSet
from tunewright.data.megatron.blend import Draws, interleave
from tunewright.data.megatron.samples import BlendedSet, StreamSet
from tunewright.data.megatron.sets import OpenSet, demand_vocabulary, open_sets, parts_of
from tunewright.data.megatron.stream import Stream, by_document, end_to_end
from tunewright.data.sampling import permutation
from tunewright.errors import InputError

_DOCUMENTS = 103
"""Third entry of the key of the order of documents (see `data.mixing`)."""

MOST_DRAWS = 2**27
"""Sequences of one epoch of a blend; a list of these many is still made in a minute or two."""

Report = Callable[[str], None]


class MegatronSets(NamedTuple):
    """The sets of a run; `train` is None without training."""

    train: PreparedSet | None
    evaluation: Mapping[str, PreparedSet]
    audit: Audit


class _Cutting(NamedTuple):
    """How documents become sequences; `seed` None leaves the documents in the order of the file."""

    longest: int
    isolated: bool
    vocab_size: int
    seed: int | None


def prepare(run: RunConfig, vocab_size: int, report: Report) -> MegatronSets:
    """Open the files that `run` names, divide them by `split`, and cut them into sequences.

    For training, documents are laid end to end in an order that depends on the seed alone, and evaluation documents in that of the
    file; with `neat_packing` those are evaluated one by one. The test part is read by commands that do not train. Raises
    `InputError` for damaged files, token ids from `vocab_size` on, and parts without anything to train on.
    """
    data = run.data
    seed = data_seed(run)
    cutting = _Cutting(data.cutoff_len, data.neat_packing and data.packing is not False, vocab_size,
                       None if run.batching.disable_shuffling else seed)
    named = _opened(data, data.dataset, "dataset", vocab_size, report)
    held_out = _opened(data, data.eval_dataset, "eval_dataset", vocab_size, report)
    for opened in named:
        _tell_parts(opened, data.split, report)
    train = None
    if run.run.do_train:
        train = _training(named, data.split, cutting, report)
    evaluation = _evaluation(run, named, held_out, cutting)
    for name, examples in evaluation.items():
        report(f"{name}: {len(examples)} sequences of up to {cutting.longest} tokens, {examples.num_trained_tokens} of them trained")
    audit = Audit(tuple(one.audit() for one in [*named, *held_out]))
    for line in audit.summary():
        report(line)
    for one in audit.sets:
        one.check(data.max_dropped_fraction)
    return MegatronSets(train, evaluation, audit)


def _opened(data: DataConfig, specs: Sequence[DatasetSpec], key: str, vocab_size: int, report: Report) -> list[OpenSet]:
    found = open_sets(data, specs, key)
    for one in found:
        demand_vocabulary(one, vocab_size)
        tokens = one.tokens
        report(f"{one.name}: Megatron's format, {tokens.num_documents} documents, {int(tokens.lengths.sum(dtype=np.int64))} tokens of "
               f"{tokens.dtype.name}")
        if tokens.unnamed_tokens:
            report(f"{one.name}: {tokens.unnamed_tokens} tokens of {tokens.file} are in no document of its index, and are not read")
    return found


def _tell_parts(one: OpenSet, split: str, report: Report) -> None:
    """Which documents are for what, where not all are trained."""
    part = parts_of(one, split)
    if part.validation or part.test:
        report(f"{one.name}: by split {split}, {len(part.training)} documents are for training, {len(part.validation)} for validation, "
               f"{len(part.test)} for testing, which a run that trains leaves aside")


def _training(named: Sequence[OpenSet], split: str, cutting: _Cutting, report: Report) -> PreparedSet:
    parts = [parts_of(one, split) for one in named]
    sets = [_cut(one, part.training, cutting, number) for number, (one, part) in enumerate(zip(named, parts, strict=True))]
    for one, part, found in zip(named, parts, sets, strict=True):
        if not found.num_trained_tokens:
            raise InputError(f"its training part, {len(part.training)} of {one.documents} documents, has no token to predict",
                             where=one.name, mend="change split, or take the set out")
    weighs = named[0].weight is not None
    weights = [one.weight or float(len(found)) for one, found in zip(named, sets, strict=True)]
    _demand_few_draws(named, sets, weights)
    train = _blended(sets, weights)
    seen = "documents see what lies before them" if not cutting.isolated else "documents do not see each other"
    report(f"train: {len(train)} sequences of up to {cutting.longest} tokens, {train.num_trained_tokens} tokens to predict; {seen}")
    if weighs and isinstance(train, BlendedSet):
        for number, one in enumerate(named):
            drawn = int((train.draws.sets == number).sum())
            report(f"  {drawn / len(train):.2%} {one.name}: {len(sets[number])} sequences, each drawn {_times(drawn, len(sets[number]))}")
    return train


def _evaluation(run: RunConfig, named: Sequence[OpenSet], held_out: Sequence[OpenSet], cutting: _Cutting) -> dict[str, PreparedSet]:
    """Whatever the weights of a blend, each sequence once."""
    cutting = cutting._replace(seed=None)
    parts = [parts_of(one, run.data.split) for one in named]
    chosen = {"validation": [(one, part.validation) for one, part in zip(named, parts, strict=True)]}
    if not run.run.do_train:
        chosen["test"] = [(one, part.test) for one, part in zip(named, parts, strict=True)]
    chosen["validation"] += [(one, range(one.documents)) for one in held_out]
    cut = _cut_alone if cutting.isolated else _cut
    sets = {name: [cut(one, documents, cutting, 0) for one, documents in several] for name, several in chosen.items()}
    found: dict[str, PreparedSet] = {
        name: _blended(several, [float(len(one)) for one in several]) for name, several in sets.items() if any(map(len, several))}
    wanted = dict(zip(PARTS, read_proportions(run.data.split), strict=True))
    for name in chosen:
        if named and wanted[name] and name not in found:
            raise InputError(f"split: {run.data.split} of {sum(one.documents for one in named)} documents leaves none for {name}",
                             mend="give it a larger part, or none")
    if not found and not run.run.do_train:
        raise InputError(f"split: {run.data.split} leaves no documents to evaluate", mend="write 90,10,0, or name an eval_dataset")
    return found


def _cut(one: OpenSet, documents: range, cutting: _Cutting, number: int) -> StreamSet:
    """Sequences over the documents laid end to end."""
    order = np.arange(documents.start, documents.stop, dtype=np.int64)
    if cutting.seed is not None:
        order = order[permutation(len(order), (cutting.seed, 0, _DOCUMENTS, number))]
    stream = Stream.of(one.tokens, order)
    return StreamSet(stream, end_to_end(len(stream), cutting.longest), cutting.isolated, cutting.vocab_size)


def _cut_alone(one: OpenSet, documents: range, cutting: _Cutting, _number: int) -> StreamSet:
    """Sequences of one document each."""
    stream = Stream.of(one.tokens, np.arange(documents.start, documents.stop, dtype=np.int64))
    return StreamSet(stream, by_document(stream.documents(), cutting.longest), cutting.isolated, cutting.vocab_size)


def _demand_few_draws(named: Sequence[OpenSet], sets: Sequence[StreamSet], weights: Sequence[float]) -> None:
    """Refuse weights under which an epoch, in which each sequence is drawn at least once, would hardly end."""
    draws = [len(one) * sum(weights) / weight for one, weight in zip(sets, weights, strict=True)]
    longest = int(np.argmax(draws))
    if draws[longest] > MOST_DRAWS:
        raise InputError(f"{named[longest].name}: with its weight of {weights[longest]:g} an epoch takes {draws[longest]:.3g} sequences "
                         f"until all its {len(sets[longest])} are drawn", mend="give it a larger weight, or fewer documents by max_samples")


def _blended(sets: Sequence[StreamSet], weights: Sequence[float]) -> StreamSet | BlendedSet:
    if len(sets) == 1:
        return sets[0]
    some = [number for number, one in enumerate(sets) if len(one)]
    drawn = interleave([weights[number] for number in some], [len(sets[number]) for number in some])
    return BlendedSet(sets, Draws(np.array(some, np.int16)[drawn.sets], drawn.rows))


def _times(drawn: int, size: int) -> str:
    least, rest = divmod(drawn, size)
    if rest:
        return f"{least} or {least + 1} times"
    return "once" if least == 1 else f"{least} times"

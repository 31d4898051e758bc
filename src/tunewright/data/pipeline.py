"""Files to examples: composes data sets, their mixture, what is held out of it, and packing for one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tunewright.config.data import VALIDATION, DataConfig, evaluation_sets
from tunewright.config.derive import packs
from tunewright.config.run import RunConfig
from tunewright.data.audit import Audit
from tunewright.data.data_sets import Sets
from tunewright.data.examples import ExampleSet, PreparedSet, TokenStore
from tunewright.data.fingerprint import digest
from tunewright.data.kept_sets import kept
from tunewright.data.mixing import interleaved, split_rows
from tunewright.data.packed_set import packed
from tunewright.data.prepared import Prepared as Prepared
from tunewright.data.prepared import PromptRow as PromptRow
from tunewright.data.row_encoder import tokeniser_of
from tunewright.data.sources import Settled
from tunewright.data.stage_layout import noun_of, rows_each
from tunewright.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunewright.data.streaming.stream import Stream
    from tunewright.data.templates import Renderer

Report = Callable[[str], None]


def build(
    run: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    renderer: Renderer | None,
    *,
    report: Report = print,
    vocab_size: int | None = None,
) -> Prepared:
    """Read, convert, tokenise, split and pack the data of `run`; `report` gets one line per thing worth knowing.

    `renderer` may be None in pre-training, which renders nothing. Raises `InputError` naming file and line for bad rows, for
    too many dropped rows, and for a token id from `vocab_size` on. Evaluation sets are never packed: their loss is that of
    single rows.
    """
    data = run.data
    if data.data_manager_type == "mg":
        from tunewright.data.megatron.prepare import prepare

        train_set, held_out, audit = prepare(run, len(tokenizer) if vocab_size is None else vocab_size, report)
        return Prepared(train_set, held_out, audit, {})
    if data.tokenized_path is None:
        return _read(run, tokenizer, renderer, report, vocab_size)
    path = Path(data.tokenized_path).expanduser()
    return kept(run, tokenizer, path, report, lambda: _read(run, tokenizer, renderer, report, vocab_size), vocab_size)


def _read(run: RunConfig, tokenizer: PreTrainedTokenizerBase, renderer: Renderer | None, report: Report,
          vocab_size: int | None) -> Prepared:
    """All data sets of the run, tokenised."""
    data = run.data
    if data.val_size and data.eval_dataset:
        raise InputError("val_size and eval_dataset are both given", mend="keep one of them")
    sets = Sets(run, tokenizer, tokeniser_of(run, tokenizer, renderer, report), report, vocab_size)
    train: PreparedSet | Stream | None = None
    evaluation: dict[str, ExampleSet] = {}
    sources: dict[str, tuple[Settled, ...]] = {}
    settled: tuple[Settled, ...] = ()
    if data.dataset and (run.run.do_train or data.val_size):
        make = _streamed if data.streaming else _whole
        train, held_out, settled = make(sets)
        evaluation |= held_out
        sources |= dict.fromkeys(held_out, settled)
    elif run.run.do_train:
        raise InputError("dataset is not given", mend="name a file, a folder or a registered data set")
    for name, specs in evaluation_sets(data).items():
        sources[name] = sets.settled(specs, "eval_dataset")
        evaluation[name] = ExampleSet.of(sets.stores(sources[name]), rows_each(run.run.stage))
    for name, examples in evaluation.items():
        report(f"{name}: {examples.summary(noun_of(run.run.stage))}, not packed")
    return Prepared(train if run.run.do_train else None, evaluation, Audit(tuple(sets.audits)), sources, sets.tokeniser.encoder.splits,
                    settled)


def _whole(sets: Sets) -> tuple[ExampleSet | None, dict[str, ExampleSet], tuple[Settled, ...]]:
    """The training set and what is held out of it, both tokenised."""
    run, data = sets.run, sets.run.data
    settled = sets.settled(data.dataset, "dataset")
    train, held_out = _split(_mixed(sets.stores(settled), data, sets), data, sets.seed)
    if not run.run.do_train:
        return None, held_out, settled
    sets.report(f"train: {train.summary(noun_of(run.run.stage))}")
    return packed(train, run, sets.first_token, sets.report) if packs(run) else train, held_out, settled


def _streamed(sets: Sets) -> tuple[Stream, dict[str, ExampleSet], tuple[Settled, ...]]:
    """The training set as a stream, and what is held out of it, tokenised."""
    from tunewright.data.streaming.prepare import Tokens, open_stream

    run, tokeniser = sets.run, sets.tokeniser
    settled = sets.settled(run.data.dataset, "dataset")
    settings = digest([tokeniser.tokenizer_digest, dict(tokeniser.settings), *([] if sets.first_token is None else [sets.first_token])])
    stream, held_out, audit = open_stream(run, settled, Tokens(tokeniser.encoder, settings, sets.ids_to(settled)),
                                          run.data.cutoff_len if packs(run) else None, sets.report)
    if audit is not None:
        sets.audits.append(audit)
        for line in audit.summary():
            sets.report(line)
    stream = replace(stream, first_token=sets.first_token)
    return stream, {} if held_out is None else {VALIDATION: held_out}, settled


def _mixed(stores: list[TokenStore], data: DataConfig, sets: Sets) -> ExampleSet:
    """All rows of the stores, one store after the other or in turns; pairs stay together."""
    each = rows_each(sets.run.run.stage)
    if data.mix_strategy == "concat" or len(stores) == 1:
        return ExampleSet.of(stores, each)
    is_split = sets.tokeniser.encoder.splits
    rows = [store.whole_rows() if is_split else np.arange(0, len(store) + 1, each) for store in stores]
    sizes = [len(bounds) - 1 for bounds in rows]
    order = interleaved(sizes, data.mix_strategy, data.interleave_probs, sets.seed)
    used = ", ".join(f"{count} of {size}" for count, size in zip(np.bincount(order[:, 0], minlength=len(sizes)), sizes, strict=True))
    sets.report(f"mixture ({data.mix_strategy}): {len(order)} rows; of each set, rows taken of rows there: {used}")
    return ExampleSet.mixed(stores, rows, order, each)


def _split(everything: ExampleSet, data: DataConfig, seed: int) -> tuple[ExampleSet, dict[str, ExampleSet]]:
    """Hold out whole rows of the files: pieces of one document, or a row drawn twice, stay on one side."""
    if not data.val_size:
        return everything, {}
    row_of = everything.rows_by_origin()[everything.bounds[:-1]]
    _, held_out = split_rows(int(row_of.max()) + 1, data.val_size, seed)
    is_held_out = np.isin(row_of, held_out)
    return everything.subset(np.flatnonzero(~is_held_out)), {VALIDATION: everything.subset(np.flatnonzero(is_held_out))}

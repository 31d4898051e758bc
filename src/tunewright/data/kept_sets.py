"""`tokenized_path` in a run: the prepared sets that lie there, or those that are made now and then lie there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.config.derive import packs
from tunewright.config.run import RunConfig
from tunewright.data.data_sets import check_vocabulary
from tunewright.data.examples import ExampleSet
from tunewright.data.fingerprint import tokenizer_digest
from tunewright.data.prepared import Prepared
from tunewright.data.stage_layout import noun_of
from tunewright.data.token_folder import holds_tokens
from tunewright.data.tokenized_path import Made, Stored, alone, load, opened, save
from tunewright.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Report = Callable[[str], None]


def kept(run: RunConfig, tokenizer: PreTrainedTokenizerBase, path: Path, report: Report, read: Callable[[], Prepared],
         vocab_size: int | None) -> Prepared:
    """What lies in `tokenized_path`, or what `read` gives, which then lies there.

    The folder is whole or absent, so that nothing is written, and nobody waits, to read it.
    """
    made = Made(len(tokenizer), tokenizer_digest(tokenizer), run.run.stage, packs(run), _read_while_made(run))
    if holds_tokens(path):
        return _found(run, path, made, report, vocab_size)
    with alone(path, report):
        if holds_tokens(path):
            return _found(run, path, made, report, vocab_size)
        prepared = read()
        train = prepared.train if isinstance(prepared.train, ExampleSet) else None
        sets = {name: examples for name, examples in prepared.evaluation.items() if isinstance(examples, ExampleSet)}
        save(path, Stored(train, sets, prepared.audit), made)
        report(f"tokenized_path: saved in {path}")
        stored = opened(path)  # as a resumed run will find them: the digest of the training data is over these arrays
        return replace(prepared, train=stored.train if run.run.do_train else None, evaluation=stored.evaluation, audit=stored.audit,
                       sources={}, trained_from=())


def _found(run: RunConfig, path: Path, made: Made, report: Report, vocab_size: int | None) -> Prepared:
    """What lies in `tokenized_path`."""
    stored = load(path, made, report)
    _check_kept(path, stored, run, vocab_size)
    for name, examples in {**({} if stored.train is None else {"train": stored.train}), **stored.evaluation}.items():
        report(f"{name}: {examples.summary(noun_of(run.run.stage))}")
    return Prepared(stored.train if run.run.do_train else None, stored.evaluation, stored.audit, {})


def _check_kept(path: Path, stored: Stored, run: RunConfig, vocab_size: int | None) -> None:
    again = "name another folder, or delete this one to have it made again"
    if run.run.do_train and stored.train is None:
        raise InputError(f"tokenized_path: holds no rows to train on, only {', '.join(stored.evaluation)}", where=str(path), mend=again)
    for examples in (stored.train, *stored.evaluation.values()):
        for store in examples.stores if examples is not None else ():
            check_vocabulary(store, vocab_size)


def _read_while_made(run: RunConfig) -> dict[str, Any]:
    """The settings that decide what is in prepared sets, as JSON has them."""
    own = ("tokenized_path", "data_cache_dir", "overwrite_cache", "preprocessing_num_workers", "preprocessing_batch_size", "neat_packing",
           "packing")
    found = {name: value for group in (run.data, run.template) for name, value in asdict(group).items() if name not in own}
    settings: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return settings

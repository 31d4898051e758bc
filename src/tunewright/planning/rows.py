"""How long the training rows of a run are: from its prepared set, from what earlier runs left in the cache, or from a sample."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np

from tunewright.config.derive import packs
from tunewright.data.examples import ExampleSet, PreparedSet
from tunewright.data.known import prepared_before, unheard
from tunewright.data.streaming.stream import Stream
from tunewright.planning.batches import Rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunewright.config.run import RunConfig
    from tunewright.data.templates import Renderer

SAMPLE: Final = 256
_COUNTED: Final = 50_000
_TRAINED: Final = 0.5
"""Share of tokens with a label where nothing is known: it decides little."""


def rows_of(examples: PreparedSet | Stream, run: RunConfig) -> Rows:
    """What a prepared training set says; a stream is not read, its rows are taken to be of the full length."""
    if isinstance(examples, Stream):
        return worst_rows(run, "a stream is not read beforehand: every row is taken to have cutoff_len tokens")
    tokens = examples.num_tokens
    parts = sum(len(store) for store in examples.stores) if isinstance(examples, ExampleSet) else len(examples)
    trained = examples.num_trained_tokens / max(1, tokens)
    return Rows(np.asarray(examples.lengths), min(tokens / max(1, parts), run.data.cutoff_len), trained, len(examples), True,
                f"the lengths of all {len(examples)} {'sequences' if packs(run) else 'rows'}")


def worst_rows(run: RunConfig, source: str, number: int | None = None) -> Rows:
    """Rows of cutoff_len tokens."""
    length = run.data.cutoff_len
    return Rows(np.array([length], dtype=np.int64), float(length), _TRAINED, number, False, source)


def find_rows(run: RunConfig, tokenizer: PreTrainedTokenizerBase, renderer: Renderer | None) -> Rows:
    """The lengths of the run's rows without tokenising all of them: true ones where they are in tokenized_path or the cache, else those
    of the first `SAMPLE` rows of each set."""
    data = run.data
    if not data.dataset and data.tokenized_path is None:
        return worst_rows(run, "dataset is absent: every row is taken to have cutoff_len tokens")
    if data.streaming:
        return worst_rows(run, "a stream is not read beforehand: every row is taken to have cutoff_len tokens")
    found = prepared_before(run, tokenizer, renderer)
    return _sampled(run, tokenizer, renderer) if found is None else rows_of(found, run)


def _sampled(run: RunConfig, tokenizer: PreTrainedTokenizerBase, renderer: Renderer | None) -> Rows:
    from tunewright.data.pipeline import build

    most = min(SAMPLE, run.data.max_samples or SAMPLE)
    data = replace(run.data, max_samples=most, data_cache_dir="none", val_size=0.0, packing=False, tokenized_path=None, eval_dataset=(),
                   mix_strategy="concat", preprocessing_num_workers=1, max_dropped_fraction=1.0)
    train = build(replace(run, data=data, run=replace(run.run, do_train=True)), tokenizer, renderer, report=unheard).train
    if train is None or isinstance(train, Stream):
        raise ValueError("a sample is never a stream")
    rows = rows_of(train, replace(run, data=data))
    number = _number(run)
    if number is not None and run.data.val_size:
        number -= round(number * run.data.val_size) if run.data.val_size < 1 else int(run.data.val_size)
    source = f"the lengths of the first {len(train)} rows"
    if not packs(run):
        return replace(rows, number=number, is_all=False, source=source)
    length = run.data.cutoff_len
    sequences = None if number is None else max(1, round(number * rows.row / length))
    return Rows(np.array([length], dtype=np.int64), rows.row, rows.trained, sequences, False, f"{source}, in full sequences of {length}")


def _number(run: RunConfig) -> int | None:
    """How many rows the data sets have; None for more than are counted."""
    from tunewright.data.sources import outcomes, settle, source_of

    total = 0
    for spec in run.data.dataset:
        settled = settle(source_of(spec, run.data, "dataset", unheard), run.run.stage)
        counted = sum(1 for _ in islice(outcomes(settled), _COUNTED + 1))
        if counted > _COUNTED:
            return None
        total += min(counted, settled.source.num_samples or counted, run.data.max_samples or counted)
    return total

"""Files to examples: composes sources, formats, tokens, cache, splits and packing for one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewright.config.data import DataConfig, DatasetSpec
from tunewright.config.run import RunConfig
from tunewright.data.audit import Audit, SetAudit
from tunewright.data.cache import TokenCache, Tokenised
from tunewright.data.encoding import Encode, Encoder
from tunewright.data.examples import ExampleSet as ExampleSet
from tunewright.data.fingerprint import digest, tokenizer_digest
from tunewright.data.formats.fields import Converted
from tunewright.data.masks import MaskPolicy
from tunewright.data.mixing import split_rows
from tunewright.data.records import Conversation, Message, Origin, Record, Text
from tunewright.data.sources import Settled, converted, locate, named, outcomes, settle
from tunewright.data.tokenise_set import Choice, Tokeniser
from tunewright.data.tokenize import Row, encode_conversations, encode_texts
from tunewright.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunewright.data.templates import Renderer

Report = Callable[[str], None]

VALIDATION = "validation"
"""Name of the evaluation set: all of `eval_dataset` together, or what `val_size` holds out."""


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A row for prediction: everything before the last answer, and the text of that answer to compare with."""

    messages: tuple[Message, ...]
    label: str
    origin: Origin
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Prepared:
    """The examples of a run. `train` is None without training; `evaluation` is by name; `audit` covers all rows read."""

    train: ExampleSet | None
    evaluation: Mapping[str, ExampleSet]
    audit: Audit
    sources: Mapping[str, tuple[Settled, ...]] = field(repr=False)

    def prompts(self, name: str = VALIDATION) -> list[PromptRow]:
        """The rows of an evaluation set for prediction, in its order, read again from their files."""
        examples = self.evaluation[name]
        wanted = [examples.origin(index) for index in range(len(examples))]
        places = {(origin.file, origin.index) for origin in wanted}
        found = {}
        for settled in self.sources[name]:
            for origin, outcome in outcomes(settled):
                if (origin.file, origin.index) in places and isinstance(outcome, Converted):
                    found[origin.file, origin.index] = _prompt_row(outcome.record)
        return [found[origin.file, origin.index] for origin in wanted]


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
    if data.val_size and data.eval_dataset:
        raise InputError("val_size and eval_dataset are both given", mend="keep one of them")
    sets = _Sets(run, _tokeniser(run, tokenizer, renderer, report), report, vocab_size)
    train: ExampleSet | None = None
    evaluation: dict[str, ExampleSet] = {}
    sources: tuple[Settled, ...] = ()
    if data.dataset and (run.run.do_train or data.val_size):
        everything, sources = sets.read(data.dataset, "dataset")
        train, evaluation = _split(everything, data, sets.seed)
    elif run.run.do_train:
        raise InputError("dataset is not given", mend="name a file, a folder or a registered data set")
    if data.eval_dataset:
        evaluation[VALIDATION], sources = sets.read(data.eval_dataset, "eval_dataset")
    train = _packed(train, run, report) if train is not None and run.run.do_train else None
    for name, examples in evaluation.items():
        report(f"{name}: {_size(examples)}, not packed")
    return Prepared(train, evaluation, Audit(tuple(sets.audits)), {name: sources for name in evaluation})


class _Sets:
    """Reads data sets and collects their audits."""

    def __init__(self, run: RunConfig, tokeniser: Tokeniser, report: Report, vocab_size: int | None) -> None:
        self.audits: list[SetAudit] = []
        self.seed = run.run.seed if run.run.data_seed is None else run.run.data_seed
        self._run = run
        self._tokeniser = tokeniser
        self._report = report
        self._vocab_size = vocab_size

    def read(self, specs: Sequence[DatasetSpec], key: str) -> tuple[ExampleSet, tuple[Settled, ...]]:
        """All rows of `specs`, one data set after the other."""
        data = self._run.data
        folder = Path(data.dataset_dir)
        located = [converted(locate(spec, folder, key=key), folder, self._report) for spec in specs]
        settled = tuple(settle(named(source, data.columns()), self._run.run.stage) for source in located)
        for one in settled:
            self._report(one.line)
        return ExampleSet.of([self._tokens(one).store for one in settled]), settled

    def _tokens(self, settled: Settled) -> Tokenised:
        data = self._run.data
        choice = Choice(settled.source.num_samples, data.max_samples, self.seed)
        made = self._tokeniser(settled, choice)
        audit = SetAudit(settled.source.name, made.rows, made.notes)
        for line in audit.summary():
            self._report(line)
        audit.check(data.max_dropped_fraction)
        self.audits.append(audit)
        _check_vocabulary(made, self._vocab_size)
        return made


def _tokeniser(run: RunConfig, tokenizer: PreTrainedTokenizerBase, renderer: Renderer | None,
               report: Report) -> Tokeniser:
    data = run.data
    split_documents = run.run.stage == "pt" and _packs(run) and data.cutoff_policy == "cut_right"
    encoder = Encoder(_encode(run, tokenizer, renderer), data.cutoff_len, data.cutoff_policy, split_documents)
    settings = {
        "stage": run.run.stage, "cutoff_len": data.cutoff_len, "cutoff_policy": data.cutoff_policy,
        "split of long documents": split_documents, "train_on_prompt": data.train_on_prompt,
        "mask_history": data.mask_history,
        "split_special_tokens": run.tokenizer.split_special_tokens,
        "template": "" if run.run.stage == "pt" else digest(repr(renderer)),
    }
    cache = None if data.data_cache_dir == "none" else TokenCache(_cache_folder(data), data.overwrite_cache, report)
    workers = data.preprocessing_num_workers or 1
    return Tokeniser(encoder, settings, tokenizer_digest(tokenizer), cache, workers, report)


def _encode(run: RunConfig, tokenizer: PreTrainedTokenizerBase, renderer: Renderer | None) -> Encode:
    """How records become ids and labels: documents by themselves, conversations by the renderer and the masks."""
    if run.run.stage == "pt":
        return partial(_encode_documents, tokenizer=tokenizer)
    if renderer is None:
        raise ValueError("conversations need a renderer")
    masks = MaskPolicy(train_on_prompt=run.data.train_on_prompt, mask_history=run.data.mask_history)
    return partial(encode_conversations, renderer=renderer, tokenizer=tokenizer, masks=masks)


def _encode_documents(records: Sequence[Record], *, tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    return encode_texts([record.text for record in records if isinstance(record, Text)], tokenizer)


def _cache_folder(data: DataConfig) -> Path:
    if data.data_cache_dir is not None:
        return Path(data.data_cache_dir).expanduser()
    return Path.home() / ".cache" / "tunewright" / "tokens"


def _split(everything: ExampleSet, data: DataConfig, seed: int) -> tuple[ExampleSet, dict[str, ExampleSet]]:
    """Hold out whole rows of the files: pieces of one document, or a row drawn twice, stay on one side."""
    if not data.val_size:
        return everything, {}
    row_of = everything.rows_by_origin()
    _, held_out = split_rows(int(row_of.max()) + 1, data.val_size, seed)
    is_held_out = np.isin(row_of, held_out)
    return everything.subset(np.flatnonzero(~is_held_out)), {VALIDATION: everything.subset(np.flatnonzero(is_held_out))}


def _packs(run: RunConfig) -> bool:
    return run.run.stage == "pt" if run.data.packing is None else run.data.packing


def _packed(train: ExampleSet, run: RunConfig, report: Report) -> ExampleSet:
    report(f"train: {_size(train)}")
    if not _packs(run):
        return train
    packed = train.packed(run.data.cutoff_len)
    full = packed.num_tokens / (len(packed) * run.data.cutoff_len)
    report(f"packing: {len(train)} rows in {len(packed)} sequences of up to {run.data.cutoff_len} tokens, {full:.1%} full")
    return packed


def _size(examples: ExampleSet) -> str:
    return (f"{len(examples)} rows, {examples.num_tokens} tokens, {examples.num_trained_tokens} of them trained, "
            f"longest {int(examples.lengths.max(initial=0))}")


def _check_vocabulary(made: Tokenised, vocab_size: int | None) -> None:
    ids = made.store.input_ids
    if vocab_size is None or len(ids) == 0 or int(ids.max()) < vocab_size:
        return
    place = int(np.argmax(np.asarray(ids) >= vocab_size))
    row = int(np.searchsorted(made.store.offsets, place, side="right")) - 1
    raise InputError(f"token id {int(ids[place])} does not fit the model, which has {vocab_size} embeddings",
                     where=str(made.store.origin(row)), mend="use the tokenizer that belongs to the model")


def _prompt_row(record: object) -> PromptRow:
    if not isinstance(record, Conversation):
        raise InputError("prediction needs conversations, not documents", mend="set stage: sft")
    return PromptRow(record.messages[:-1], _answer_text(record.messages[-1]), record.origin, record.tools)


def _answer_text(message: Message) -> str:
    calls = "\n".join(f'{{"name": "{call.name}", "arguments": {call.raw}}}' for call in message.tool_calls)
    return "\n".join(part for part in (message.content, calls) if part)

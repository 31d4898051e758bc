"""What turns the rows of a run into tokens: by its stage, its template, its masks and its way with long rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.config.data import DataConfig
from tunewright.config.derive import packs
from tunewright.config.run import RunConfig
from tunewright.data.answer_encoder import AnswerEncoder
from tunewright.data.cache import TokenCache
from tunewright.data.encoding import Encoder, RowEncoder
from tunewright.data.fingerprint import digest, tokenizer_digest
from tunewright.data.formats.layout import Kind
from tunewright.data.long_rows import Encode, Ints, LongRows
from tunewright.data.masks import MaskPolicy
from tunewright.data.piece_encoder import ArrayRow
from tunewright.data.prompt_encoder import PromptEncoder
from tunewright.data.records import Record, Text, TokenIds
from tunewright.data.stage_layout import kind_of
from tunewright.data.tokenise_set import Pace, Tokeniser
from tunewright.data.tokenize import Row, encode_conversations_fast, encode_prompts, encode_texts
from tunewright.errors import require

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunewright.data.templates import Renderer

Report = Callable[[str], None]


def tokeniser_of(run: RunConfig, tokenizer: PreTrainedTokenizerBase, renderer: Renderer | None, report: Report) -> Tokeniser:
    """What tokenises the data sets of `run`, with its cache and everything that the tokens depend on."""
    data = run.data
    encoder = row_encoder(run, tokenizer, renderer)
    settings = {
        "stage": run.run.stage, "cutoff_len": data.cutoff_len, "cutoff_policy": data.cutoff_policy,
        "split of long documents": isinstance(encoder, Encoder) and encoder.split_documents, "train_on_prompt": data.train_on_prompt,
        "mask_history": data.mask_history,
        "split_special_tokens": run.tokenizer.split_special_tokens,
        "template": "" if run.run.stage == "pt" or renderer is None else template_digest(renderer),
    }
    cache = None if data.data_cache_dir == "none" else TokenCache(cache_folder(data), data.overwrite_cache, report)
    pace = Pace(data.preprocessing_num_workers, data.preprocessing_batch_size)
    return Tokeniser(encoder, settings, tokenizer_digest(tokenizer), cache, pace, report)


def template_digest(renderer: Renderer) -> str:
    """A digest of the template and of what it is given; the tokenizer's tokens have a digest of their own."""
    return digest(repr(replace(renderer, special=(), control=())))


def row_encoder(run: RunConfig, tokenizer: PreTrainedTokenizerBase, renderer: Renderer | None) -> RowEncoder:
    """What turns records into the training rows of `run`; `renderer` may be None in pre-training."""
    kind = kind_of(run.run.stage)
    if kind in ("preference", "feedback", "prompt"):
        return _of_answers(run.data, kind, tokenizer, renderer)
    data, encode = run.data, _encode(run, tokenizer, renderer)
    if run.run.stage == "pt":
        continued = data.cutoff_policy == "split" or (packs(run) and data.cutoff_policy in ("cut_right", "proportional"))
        return Encoder(encode, data.cutoff_len, data.cutoff_policy, split_documents=continued)
    if renderer is None:
        raise ValueError("conversations need a renderer")
    mark = partial(_encode_records, encode=partial(encode_conversations_fast, renderer=renderer, tokenizer=tokenizer))
    return Encoder(encode, data.cutoff_len, data.cutoff_policy, split_documents=False,
                   conversations=LongRows(encode, mark, last_first=data.mask_history))


def _of_answers(data: DataConfig, kind: Kind, tokenizer: PreTrainedTokenizerBase, renderer: Renderer | None) -> RowEncoder:
    """What turns pairs, marked answers or prompts into rows."""
    if renderer is None:
        raise ValueError("conversations need a renderer")
    require(data.cutoff_policy != "split", "cutoff_policy: split makes several rows of a long one, but an answer is compared or marked "
            "as a whole", mend="set cutoff_policy: proportional, cut_right, cut_left or drop")
    if kind == "prompt":
        return PromptEncoder(partial(encode_prompts, renderer=renderer, tokenizer=tokenizer), data.cutoff_len, data.cutoff_policy)
    encode = partial(_encode_records, encode=partial(encode_conversations_fast, renderer=renderer, tokenizer=tokenizer))
    return AnswerEncoder(encode, data.cutoff_len, data.cutoff_policy)


def _encode(run: RunConfig, tokenizer: PreTrainedTokenizerBase, renderer: Renderer | None) -> Encode:
    """How records become ids and labels: documents by themselves, conversations by the renderer and the masks."""
    if run.run.stage == "pt":
        return partial(_encode_records, encode=partial(_encode_documents, tokenizer=tokenizer))
    if renderer is None:
        raise ValueError("conversations need a renderer")
    masks = MaskPolicy(train_on_prompt=run.data.train_on_prompt, mask_history=run.data.mask_history)
    return partial(_encode_records, encode=partial(encode_conversations_fast, renderer=renderer, tokenizer=tokenizer, masks=masks))


def _encode_records(records: Sequence[Record], *, encode: Callable[..., Sequence[Row | ArrayRow]]) -> Sequence[tuple[Ints, Ints]]:
    """Ids and labels of a chunk, whose records are of one kind; those that were tokenised before are as they are."""
    if records and isinstance(records[0], TokenIds):
        return [(record.input_ids, record.labels) for record in records if isinstance(record, TokenIds)]
    return encode(records)


def _encode_documents(records: Sequence[Record], *, tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    return encode_texts([record.text for record in records if isinstance(record, Text)], tokenizer) if records else []


def cache_folder(data: DataConfig) -> Path:
    """Where what is computed of data is kept for other runs, unless data_cache_dir is none."""
    if data.data_cache_dir is not None:
        return Path(data.data_cache_dir).expanduser()
    return Path.home() / ".cache" / "tunewright" / "tokens"

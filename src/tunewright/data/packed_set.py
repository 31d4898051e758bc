"""The training rows of a run in packed sequences, where it wants that."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tunewright.config.derive import packs
from tunewright.config.run import RunConfig
from tunewright.data.examples import ExampleSet
from tunewright.data.quirks import chosen

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def packed(train: ExampleSet, run: RunConfig, first_token: int | None, report: Callable[[str], None]) -> ExampleSet:
    """The same rows in sequences of cutoff_len, packed over the whole set, or, by LLaMA-Factory's quirk, over one batch of preprocessing
    after the other. `first_token` takes the place of the first one of every sequence, if there is one."""
    data = run.data
    together = data.preprocessing_batch_size if "packing-batch-local" in chosen(data.data_compat) else None
    found = train.packed(data.cutoff_len, together)
    full = found.num_tokens / (len(found) * data.cutoff_len)
    where = "" if together is None else f" ({together} rows at a time)"
    report(f"packing: {len(train)} rows in {len(found)} sequences of up to {data.cutoff_len} tokens{where}, {full:.1%} full")
    if first_token is None:
        return found
    report(f"packing: the first token of each sequence is made {first_token}, the BOS token (data_compat: pt-bos-overwrite)")
    return found.with_first_token(first_token)


def first_token(run: RunConfig, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The BOS token if it overwrites the first token of packed documents: LLaMA-Factory's quirk, where the tokenizer adds one."""
    if run.run.stage != "pt" or not packs(run) or "pt-bos-overwrite" not in chosen(run.data.data_compat):
        return None
    ids: Any = tokenizer("a", add_special_tokens=True)["input_ids"]
    bos: int | None = tokenizer.bos_token_id
    return bos if bos is not None and ids[:1] == [bos] else None

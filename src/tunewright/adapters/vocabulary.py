"""Adapters that hold the embedding: of models whose vocabulary a run enlarged.

The rows of new tokens are in no base model, so such an adapter carries the whole embedding and the whole head, trained in full.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from tunewright.adapters.directory import AdapterFacts, adapter_directories
from tunewright.config.model import ModelConfig, TokenizerConfig
from tunewright.config.tuning import LoraConfig
from tunewright.data.control_tokens import ADDED_TOKENS
from tunewright.errors import refuse, require
from tunewright.models.directory import read_json_object
from tunewright.models.families import embeddings, head
from tunewright.models.new_tokens import new_tokens
from tunewright.models.surgery.vocabulary import begin, matrices, resize

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


def with_vocabulary(model: PreTrainedModel, lora: LoraConfig) -> LoraConfig:
    """`lora` with embedding and head among the modules trained in full, as LLaMA-Factory does; it is reported.

    Raises `InputError` if lora_target names one of them: a module takes either an adapter or training in full.
    """
    named = vocabulary_modules(model)
    for name in named:
        for entry in lora.lora_target:
            require(entry != name and not name.endswith(f".{entry}"),
                    f"lora_target: '{entry}' would get an adapter, but its rows for new tokens must train in full",
                    mend="remove it from lora_target")
    log.info("new rows: %s train in full and are saved with the adapter", " and ".join(named))
    return replace(lora, additional_target=tuple(dict.fromkeys([*lora.additional_target, *named])))


def vocabulary_modules(model: PreTrainedModel) -> list[str]:
    """Names of the embedding and of the output head, as `model` calls them."""
    wanted = (embeddings(model), head(model))
    return [name for name, module in model.named_modules() if any(module is one for one in wanted)]


def are_tied(model: PreTrainedModel) -> bool:
    """Whether embedding and head are one matrix."""
    top = head(model)
    return top is not None and top.weight is embeddings(model).weight


def make_room(model: PreTrainedModel, facts: AdapterFacts) -> None:
    """Give `model` as many embedding rows as the adapter brings along, if it has fewer: means, in whose place the adapter's own are read.

    Raises `InputError` if the model cannot grow.
    """
    rows = len(model.get_input_embeddings().weight)
    saved = [facts.shapes.get(f"base_model.model.{name}.weight", (0,))[0] for name in vocabulary_modules(model)]
    if max(saved, default=0) > rows:
        resize(model, max(saved))
        for matrix in matrices(model).values():
            begin(matrix, rows, {})
        log.info("adapter %s brings %d embedding rows, the base has %d", facts.directory, max(saved), rows)


def own_tokenizer(model: ModelConfig, tokenizer: TokenizerConfig) -> ModelConfig:
    """`model`, or in its place the last adapter that is given, where that one's training added tokens: then only its own tokenizer knows
    them. Not where the run names a tokenizer."""
    adapters = adapter_directories(model) if tokenizer.tokenizer_name_or_path is None else ()
    file = adapters[-1] / "tokenizer_config.json" if adapters else None
    if file is None or not file.is_file() or not read_json_object(file).get(ADDED_TOKENS):
        return model
    log.info("tokenizer: that of the adapter %s, whose training added tokens", adapters[-1])
    return replace(model, model_name_or_path=str(adapters[-1]), gguf_file=None, adapter_name_or_path=(), trust_remote_code=False)


def refuse_new_tokens(tokenizer: PreTrainedTokenizerBase, why: str, mend: str) -> None:
    """Raise `InputError` if the run adds tokens that neither the model nor its adapters know."""
    texts = new_tokens(tokenizer).texts
    if texts:
        refuse(f"the token '{texts[0]}' is new, but {why}", mend=mend)

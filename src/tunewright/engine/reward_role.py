"""The reward model of a run: an adapter on the policy's base, or a model of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tunewright.adapters.directory import adapter_directories, find_adapter, split_adapter
from tunewright.adapters.reward_adapter import load_reward_adapter
from tunewright.errors import require
from tunewright.inference.opening import open_tokenizer, open_weights
from tunewright.kernels.plan import hasten
from tunewright.models.directory import find_model
from tunewright.models.heads import load_value_head
from tunewright.models.unopened import TOKENIZER_FILES

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tunewright.config.model import ModelConfig
    from tunewright.config.run import RunConfig


def open_reward(run: RunConfig, policy: nn.Module, tokenizer: PreTrainedTokenizerBase) -> nn.Module | None:
    """The reward model that the run names, with its value head, frozen, in evaluation mode; None for a service, or without one.

    Raises `InputError` for a model without a value head, and for one whose tokens are not the policy's.
    """
    given = run.alignment
    if given.reward_model is None or given.reward_model_type == "api":
        return None
    if given.reward_model_type == "lora":
        return load_reward_adapter(policy, find_adapter(given.reward_model, run.model))
    model: nn.Module = open_full(run, tokenizer)
    return model


def open_full(run: RunConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """`reward_model` with `reward_model_adapters`, on this process's device; its value head is that of the last of them."""
    bits = run.alignment.reward_model_quantization_bit
    source = split_adapter(reward_source(run))
    adapters = adapter_directories(source)
    asked = replace(run, model=source, quantization=replace(run.quantization, quantization_bit=bits),
                    inference=replace(run.inference, infer_dtype="auto", merge_lora=bits is None, auto_merge_weights=False))
    demand_same_tokens(asked, source, adapters, tokenizer)
    model = open_weights(asked, source, adapters, tokenizer)
    load_value_head(model, adapters[-1] if adapters else find_model(source))
    hasten(run, model)
    model.requires_grad_(False)
    return model.eval()


def reward_source(run: RunConfig) -> ModelConfig:
    """Where the weights of a reward model of its own come from."""
    same = run.alignment.reward_model == run.model.model_name_or_path
    return replace(run.model, model_name_or_path=run.alignment.reward_model, adapter_name_or_path=run.alignment.reward_model_adapters,
                   adapter_folder=None, gguf_file=None, train_from_scratch=False,
                   model_revision=run.model.model_revision if same else "main")


def demand_same_tokens(run: RunConfig, source: ModelConfig, adapters: tuple[Path, ...], tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `InputError` if the reward model has a tokenizer that numbers tokens otherwise: it is given the policy's."""
    directory = find_model(source)
    if not any((place / name).is_file() for place in (directory, *adapters[-1:]) for name in TOKENIZER_FILES):
        return
    own = open_tokenizer(replace(run, tokenizer=replace(run.tokenizer, tokenizer_name_or_path=None)), source, adapters).get_vocab()
    other = min(((number, token) for token, number in tokenizer.get_vocab().items() if own.get(token) != number), default=None)
    require(other is None, f"reward_model: its tokenizer is another one than the policy's: {other and other[1]!r} is {other and other[0]} "
            f"here and {other and own.get(other[1])} there",
            mend="serve it over HTTP, which takes texts, and set reward_model_type: api")

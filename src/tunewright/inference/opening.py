"""Opens what a user points at - a model, an adapter, a run's output directory - with its tokenizer and template."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tunewright.adapters.directory import adapter_directories, split_adapter
from tunewright.adapters.lora import load_adapter, merge_adapters
from tunewright.config.model import ModelConfig
from tunewright.config.run import RunConfig
from tunewright.data.templates import Renderer, load_renderer
from tunewright.models.load import check_vocabulary, load_model
from tunewright.models.tokenizer import load_tokenizer
from tunewright.models.unopened import TOKENIZER_FILES

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Opened:
    """A model ready to answer, in evaluation mode on `device`; `adapters` are applied in it, the last one live."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    renderer: Renderer
    adapters: tuple[Path, ...]


def open_model(run: RunConfig) -> Opened:
    """The model that `run.model` points at, with its adapters, tokenizer and template. Raises `InputError` on bad input."""
    source = split_adapter(run.model)
    adapters = adapter_directories(source)
    tokenizer = open_tokenizer(run, source, adapters)
    renderer = load_renderer(run.template, tokenizer)
    return Opened(_open_weights(run, source, adapters, tokenizer), tokenizer, renderer, adapters)


def open_without_template(run: RunConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The same for documents, which need no template: base models often have none."""
    source = split_adapter(run.model)
    adapters = adapter_directories(source)
    tokenizer = open_tokenizer(run, source, adapters)
    return _open_weights(run, source, adapters, tokenizer), tokenizer


def _open_weights(
    run: RunConfig, source: ModelConfig, adapters: tuple[Path, ...], tokenizer: PreTrainedTokenizerBase,
) -> PreTrainedModel:
    model = load_model(source, run.precision)
    check_vocabulary(tokenizer, model)
    return with_adapters(model, adapters).to(device(run)).eval()


def with_adapters(model: PreTrainedModel, adapters: tuple[Path, ...]) -> PreTrainedModel:
    """`model` with all adapters but the last merged into it and the last one live on it."""
    if not adapters:
        return model
    adapted = load_adapter(merge_adapters(model, adapters[:-1]), adapters[-1], trainable=False)
    return cast("PreTrainedModel", adapted)


def open_tokenizer(run: RunConfig, source: ModelConfig, adapters: tuple[Path, ...]) -> PreTrainedTokenizerBase:
    """The tokenizer saved with the last adapter, which holds the template of its training, else the model's."""
    beside = adapters[-1] if adapters and any((adapters[-1] / name).is_file() for name in TOKENIZER_FILES) else None
    if beside is None:
        return load_tokenizer(source, run.tokenizer)
    return load_tokenizer(replace(source, model_name_or_path=str(beside), gguf_file=None), run.tokenizer)


def device(run: RunConfig) -> torch.device:
    """The first accelerator, or the CPU where there is none or `use_cpu` asks for it."""
    import torch

    found = None if run.run.use_cpu else torch.accelerator.current_accelerator(check_available=True)
    return found or torch.device("cpu")

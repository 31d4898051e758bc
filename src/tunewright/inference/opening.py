"""Opens what a user points at - a model, an adapter, a run's output directory - with its tokenizer and template."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tunewright.adapters.directory import adapter_directories, split_adapter
from tunewright.adapters.lora import load_adapter, merge_adapters
from tunewright.adapters.positions import with_positions
from tunewright.adapters.vocabulary import refuse_new_tokens
from tunewright.config.model import ModelConfig
from tunewright.config.run import RunConfig
from tunewright.data.templates import Renderer, load_renderer
from tunewright.models.families import is_quantised
from tunewright.models.load import check_vocabulary, load_model
from tunewright.models.surgery.vocabulary import fit_vocabulary
from tunewright.models.tokenizer import load_tokenizer
from tunewright.models.unopened import TOKENIZER_FILES
from tunewright.quantization.quantizer import quantizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


log = logging.getLogger(__name__)


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
    return Opened(open_weights(run, source, adapters, tokenizer), tokenizer, renderer, adapters)


def open_without_template(run: RunConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The same for documents, which need no template: base models often have none."""
    source = split_adapter(run.model)
    adapters = adapter_directories(source)
    tokenizer = open_tokenizer(run, source, adapters)
    return open_weights(run, source, adapters, tokenizer), tokenizer


def open_weights(
    run: RunConfig, source: ModelConfig, adapters: tuple[Path, ...], tokenizer: PreTrainedTokenizerBase,
) -> PreTrainedModel:
    """The weights of `source` with its adapters, in evaluation mode on this process's device, with a row for each token."""
    import torch

    dtype = dtype_of(run)
    merged = merges(run, len(adapters))
    # Adapters are added in float32 and rounded once: small changes would be lost in a narrower format.
    source, length_tokens = with_positions(source, run.data.cutoff_len)
    model = load_model(source, run.precision, dtype=torch.float32 if merged else dtype, length_tokens=length_tokens,
                       quantizer=quantizer(run.quantization, run.precision, use_cpu=run.run.use_cpu))
    fit_base(model, tokenizer, run, adapters)
    answering = merge_adapters(model, adapters) if merged else with_adapters(model, adapters)
    check_vocabulary(tokenizer, answering)
    if merged:
        return answering.to(device(run), dtype).eval()
    # Quantised weights are where they were put, perhaps on several devices.
    return (answering if is_quantised(model) else answering.to(device(run))).eval()


def fit_base(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, run: RunConfig, adapters: tuple[Path, ...]) -> None:
    """Rows for the tokens that the run adds to a model without adapters, as training begins with them.

    Raises `InputError` if there are adapters, which bring the rows of all tokens that they know.
    """
    if adapters:
        refuse_new_tokens(tokenizer, f"{adapters[-1]} was trained without it", "remove it, or train with it first")
    elif fit_vocabulary(model, tokenizer, run.tokenizer, run.run.seed):
        log.warning("the rows of new tokens have seen no training")


def dtype_of(run: RunConfig) -> torch.dtype:
    """The number format in which the model answers."""
    import torch

    named = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
    return named.get(run.inference.infer_dtype, torch.bfloat16 if run.precision.pure_bf16 else torch.float32)


def merges(run: RunConfig, adapters: int) -> bool:
    """Whether the adapters become part of the weights before the model answers."""
    return (run.inference.merge_lora and adapters > 0) or (run.inference.auto_merge_weights and adapters > 1)


def with_adapters(model: PreTrainedModel, adapters: tuple[Path, ...]) -> PreTrainedModel:
    """`model` with all adapters but the last merged into it and the last one live on it."""
    if not adapters:
        return model
    adapted = load_adapter(merge_adapters(model, adapters[:-1]), adapters[-1], trainable=False)
    return cast("PreTrainedModel", adapted)


def open_tokenizer(run: RunConfig, source: ModelConfig, adapters: tuple[Path, ...]) -> PreTrainedTokenizerBase:
    """The tokenizer that the run names, else the one saved with the last adapter, which holds the template of its training, else the
    model's."""
    named = run.tokenizer.tokenizer_name_or_path is not None
    beside = adapters[-1] if adapters and not named and any((adapters[-1] / name).is_file() for name in TOKENIZER_FILES) else None
    if beside is None:
        return load_tokenizer(source, run.tokenizer)
    return load_tokenizer(replace(source, model_name_or_path=str(beside), gguf_file=None), run.tokenizer)


def device(run: RunConfig) -> torch.device:
    """The first accelerator, or the CPU where there is none or `use_cpu` asks for it."""
    import torch

    found = None if run.run.use_cpu else torch.accelerator.current_accelerator(check_available=True)
    return found or torch.device("cpu")

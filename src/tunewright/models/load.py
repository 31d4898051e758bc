"""The one loader of model weights: flags that a foreign file could set are set here, on every call."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tunewright.config.model import ModelConfig
from tunewright.config.optimization import PrecisionConfig
from tunewright.errors import InputError, missing_package, refuse, require
from tunewright.models.directory import check_config, check_directory, check_sizes, check_weights, find_model
from tunewright.models.families import fused_experts, vocabulary_rows
from tunewright.models.quantised import quantised
from tunewright.models.unopened import require_gguf

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from tunewright.quantization.quantizer import Quantizer

log = logging.getLogger(__name__)

ATTENTION: Final[Mapping[str, str | None]] = {
    "auto": None, "disabled": "eager", "sdpa": "sdpa", "fa2": "flash_attention_2",
}
"""Value of `flash_attn` -> attention implementation of transformers; None lets the family choose."""
_ANYWHERE: Final[Mapping[str, Any]] = {}


def load_model(
    model: ModelConfig, precision: PrecisionConfig, *, attention: str | None = None, dtype: torch.dtype | None = None,
    length_tokens: int = 0, quantizer: Quantizer | None = None,
) -> PreTrainedModel:
    """The causal language model in evaluation mode: on the CPU, or where `quantizer` puts quantised weights.

    Weights are float32, or bfloat16 with `pure_bf16`; `dtype` overrides (tests use float64). `attention` overrides what
    `flash_attn` says. `length_tokens`: the longest sequence, to which rope_scaling stretches positions.
    Raises `InputError` for anything wrong with the directory, and if a weight that the architecture
    needs is not in the files.
    """
    import torch

    dtype = dtype or (torch.bfloat16 if precision.pure_bf16 else torch.float32)
    directory = find_model(model)
    attention = attention or attention_implementation(model)
    if model.gguf_file:
        loaded = _load_gguf(directory, model, attention, dtype, length_tokens)
    elif model.trust_remote_code:
        loaded = _load_trusted(directory, model, attention, dtype, _placement(directory, quantizer))
    else:
        config = stretched(build_config(directory), model, length_tokens)
        loaded = _open(directory, config, attention, dtype, _placement(directory, quantizer))
    if getattr(loaded, "is_quantized", False):
        from tunewright.quantization.bitsandbytes import keep_one_form, let_file_go

        keep_one_form(loaded)
        let_file_go(loaded)
        experts = sorted({name.rsplit(".", 1)[-1] for name in fused_experts(loaded)})
        if experts:
            log.warning("the experts (%s) stay in %s: they are fused tensors, and only linear layers are quantised",
                        ", ".join(experts), dtype)
    _remember_name(loaded, model, directory)
    return loaded


def build_config(directory: Path) -> PretrainedConfig:
    """The configuration object of a checked directory, made by transformers' own class for its `model_type`.

    Raises `InputError` if there is no such class or the class refuses the values.
    """
    from transformers import CONFIG_MAPPING, PretrainedConfig
    from transformers import __version__ as version

    values = check_config(directory)
    where = str(directory / "config.json")
    kind = values.get("model_type")
    require(isinstance(kind, str) and kind in CONFIG_MAPPING, f"model_type {kind!r} is not known to transformers {version}",
            where=where, mend="use a newer transformers, or trust_remote_code if you have read the model's own code")
    try:
        built: PretrainedConfig = CONFIG_MAPPING[kind].from_dict(values)
        inner = built.get_text_config()
    except (KeyError, ValueError, TypeError, ZeroDivisionError, AttributeError) as error:
        raise _unbuildable(error, where) from error
    name = next((key for key in values if getattr(built, key, None) is inner), "")
    require(isinstance(inner, PretrainedConfig), f"{name}: a {kind} has no model within the model", where=where,
            mend="fetch the model again")
    return built


def attention_implementation(model: ModelConfig) -> str | None:
    """What `flash_attn` asks for in transformers' words. Raises `InputError` if the package it needs is absent."""
    from importlib.util import find_spec

    if model.flash_attn == "fa2" and find_spec("flash_attn") is None:
        raise missing_package("flash-attn", feature="FlashAttention 2", parameter="flash_attn: fa2", extra="flash")
    return ATTENTION[model.flash_attn]


def reload_weights(model: PreTrainedModel, directory: Path) -> None:
    """Put the weights saved in `directory` into `model`, bit by bit; both must have the same tensors."""
    saved = _open(directory, model.config, model.config._attn_implementation, model.dtype)
    model.load_state_dict(saved.state_dict())


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Raise `InputError` if the tokenizer can make an id that has no row in the embedding.

    Special tokens that it adds beyond its vocabulary are let pass, as in `unopened.check_tokenizer`.
    """
    rows = vocabulary_rows(model)
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    ordinary = (entry for entry in tokenizer.get_vocab().items() if entry[1] not in special)
    token, highest = max(ordinary, key=lambda entry: entry[1], default=("", 0))
    require(highest < rows, f"the tokenizer makes ids up to {highest} ({token!r}), but the model has {rows} embedding rows",
            where=tokenizer.name_or_path or None, mend="use the tokenizer that belongs to the model, or set resize_vocab: true")


def quiet_transformers() -> None:
    """No progress bars and no advice from transformers; errors stay. For commands, whose output is their own."""
    from logging import ERROR, getLogger

    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # peft imports bitsandbytes wherever it is installed, which then tells which kernels it could not download.
    getLogger("bitsandbytes").setLevel(ERROR)


def _open(
    directory: Path, config: PretrainedConfig, attention: str | None, dtype: torch.dtype, placement: Mapping[str, Any] = _ANYWHERE,
) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    check_weights(directory)
    try:
        loaded, report = AutoModelForCausalLM.from_pretrained(
            directory, config=config, dtype=dtype, attn_implementation=attention, trust_remote_code=False,
            local_files_only=True, use_safetensors=True, output_loading_info=True, **placement)
    except (KeyError, ValueError, TypeError, ZeroDivisionError, RuntimeError, AttributeError) as error:
        raise _unbuildable(error, str(directory)) from error
    _require_complete(report["missing_keys"], directory)
    return loaded


def _load_trusted(
    directory: Path, model: ModelConfig, attention: str | None, dtype: torch.dtype, placement: Mapping[str, Any],
) -> PreTrainedModel:
    """The same with the repository's own Python code, which the person at the command line has allowed."""
    from transformers import AutoModelForCausalLM

    check_directory(directory)
    loaded, report = AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, attn_implementation=attention, trust_remote_code=model.trust_remote_code, local_files_only=True,
        use_safetensors=True, output_loading_info=True, **placement)
    _require_complete(report["missing_keys"], directory)
    return loaded


def _placement(directory: Path, quantizer: Quantizer | None) -> Mapping[str, Any]:
    """What `from_pretrained` is told of quantised weights: nothing where they are floats and stay so.

    Raises `InputError` if they are quantised already, and floats are needed or they would be quantised again.
    """
    found = quantised(check_config(directory))
    if found is None:
        if quantizer is None or quantizer.settings is None:
            return _ANYWHERE
        return {"quantization_config": quantizer.settings, "device_map": quantizer.device_map}
    where = str(directory / "config.json")
    if quantizer is None:
        refuse(f"the weights are quantised ({found}), but numbers in floating point are needed", where=where,
               mend="use the unquantised model")
    require(quantizer.settings is None, f"the weights are quantised already ({found}), but quantization_bit is {quantizer.bits}",
            where=where, mend="remove quantization_bit, or use the unquantised model")
    from tunewright.quantization.bitsandbytes import require_package

    require_package("model_name_or_path")
    return {"device_map": quantizer.device_map}


def _load_gguf(directory: Path, model: ModelConfig, attention: str | None, dtype: torch.dtype, length_tokens: int) -> PreTrainedModel:
    from transformers import AutoConfig, AutoModelForCausalLM

    name = str(model.gguf_file)
    file = directory / name
    require_gguf(directory, name)
    try:
        config = AutoConfig.from_pretrained(directory, gguf_file=name, trust_remote_code=False, local_files_only=True)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        refuse(f"the GGUF file cannot be read: {' '.join(str(error).split())[:300]}", where=str(file), mend="use another file")
    check_sizes(config.to_dict(), file)
    loaded = AutoModelForCausalLM.from_pretrained(
        directory, config=stretched(config, model, length_tokens), gguf_file=name, dtype=dtype, attn_implementation=attention,
        trust_remote_code=False, local_files_only=True)
    # The weights are plain floats now, but the loader leaves the marks of a quantised model, which then refuses to be saved.
    loaded.hf_quantizer = None
    loaded.is_quantized = False
    if hasattr(loaded.config, "quantization_config"):
        del loaded.config.quantization_config
    return loaded


def stretched(config: PretrainedConfig, model: ModelConfig, length_tokens: int) -> PretrainedConfig:
    """`config` with positions for `length_tokens` if `rope_scaling` asks for that."""
    from tunewright.models.surgery.rope import stretch_positions

    return config if model.rope_scaling is None else stretch_positions(config, model.rope_scaling, length_tokens)


def _require_complete(missing: Any, directory: Path) -> None:
    names = sorted(missing)
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        refuse(f"the weights files of {directory} lack {', '.join(names[:3])}{more}",
               mend="fetch the model again; weights are never invented")


def _unbuildable(error: Exception, where: str) -> InputError:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return InputError(f"the model cannot be built from these files: {type(error).__name__}: {reason}", where=where,
                      mend="fetch the model again")


def _remember_name(loaded: PreTrainedModel, model: ModelConfig, directory: Path) -> None:
    """Adapters record their base by this name: a hub id stays one, a directory becomes absolute."""
    named = model.model_name_or_path or ""
    is_local = named == "demo" or Path(named).expanduser().is_dir()
    loaded.name_or_path = loaded.config._name_or_path = str(directory) if is_local else named

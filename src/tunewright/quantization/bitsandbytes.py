"""4-bit and 8-bit base models with bitsandbytes: the one module of models that needs the package.

4 bits: blocks of 64 weights share one scale, and each weight is one of 16 codes (QLoRA, Dettmers et al. 2023, arXiv 2305.14314,
section 3). 8 bits: LLM.int8() (Dettmers et al. 2022, arXiv 2208.07339). Embeddings, norms and the output head stay as they are.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tunewright.config.quantization import QuantizationConfig
from tunewright.errors import missing_package

if TYPE_CHECKING:
    from torch import nn
    from transformers import BitsAndBytesConfig


def settings(config: QuantizationConfig, compute_dtype: str) -> BitsAndBytesConfig:
    """transformers' settings for bitsandbytes. Raises InputError if the package is absent."""
    import torch
    from transformers import BitsAndBytesConfig

    require_package("quantization_bit")
    if config.quantization_bit == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=config.quantization_type, bnb_4bit_use_double_quant=config.double_quantization,
        bnb_4bit_compute_dtype=getattr(torch, compute_dtype))


def require_package(parameter: str) -> None:
    """Raise InputError if bitsandbytes, which `parameter` asks for, is absent; else keep it from telling what was asked for."""
    if find_spec("bitsandbytes") is None:
        raise missing_package("bitsandbytes", feature="a quantised base model", parameter=parameter, extra="quant")
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_is_news)
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_news)


def keep_one_form(model: nn.Module) -> None:
    """Keep 4-bit weights in the form they were loaded in.

    On CPUs with bfloat16 instructions bitsandbytes repacks a layer when it first answers without gradients, and then computes it in
    bfloat16: an evaluation between two steps would change what the next step trains on, and sizes that are no multiple of 64 fail.
    In 8 bits, DoRA of peft 0.21 replaces the weight after each forward pass on a CPU, and loses its scales.
    """
    import bitsandbytes as bnb

    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
        elif isinstance(module, bnb.nn.Linear8bitLt):
            module.register_forward_pre_hook(_with_scales)


def let_file_go(model: nn.Module) -> None:
    """Copy the weights on the CPU that were not quantised: they are views of the mapped file, whose pages, those of the weights that were
    quantised too, stay in memory as long as one of them."""
    for weight in model.parameters():
        if weight.device.type == "cpu" and weight.is_floating_point():
            weight.data = weight.data.clone()


def _with_scales(module: Any, _inputs: Any) -> None:
    """Give a weight that has come without scales those that its layer knows."""
    if module.weight.CB is not None and module.weight.SCB is None:
        module.weight.SCB = module.state.SCB


def _is_news(record: logging.LogRecord) -> bool:
    """Not that the input of each product of 8-bit weights is rounded, nor that kernels which are not used here are absent."""
    return not str(record.msg).startswith(("MatMul8bitLt: inputs will be cast", "Failed to load CPU gemm_4bit_forward"))

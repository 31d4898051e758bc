"""Quantised weights and low-precision training. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("use_triton", "Uses Triton kernels for quantized inference.",
            because="Triton kernels belong to GPTQ checkpoints, which are not read", cli_reference=inert("use_triton", False)),
    refused("use_exllama", "Uses ExLlama kernels for 4-bit inference.",
            because="ExLlama kernels belong to GPTQ checkpoints, which are not read", cli_reference=inert("use_exllama", False)),
    refused("quant_recipe", "Selects the low-precision training recipe; null disables it.", mindspeed_fsdp2=inert("quant_recipe", None)),
    refused("quant_format", "Low-precision number format used by the recipe.", mindspeed_fsdp2=inert("quant_format", None)),
    refused("quant_block_size", "Number of elements that share one scale.", mindspeed_fsdp2=inert("quant_block_size", 32)),
    refused("quant_apply_modules", "Module patterns to quantize; {*} matches every index.",
            mindspeed_fsdp2=inert("quant_apply_modules", ['model.layers.{*}'])),
    refused("quant_ignored_modules", "Sub-modules left unquantized.", mindspeed_fsdp2=inert("quant_ignored_modules", ['lm_head'])),
    refused("converters", "Quantization converters applied to matched modules.",
            mindspeed_fsdp2=inert("converters", ['quantize.linear.mx'])),
)

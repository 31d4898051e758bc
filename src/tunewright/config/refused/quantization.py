"""Quantised weights and low-precision training. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("quantization_bit", "Loads the base model quantized on the fly to this many bits; null disables it.",
            llamafactory=inert("quantization_bit", None), cli_reference=inert("quantization_bit", None),
            qlora_script=inert("bits", 4)),
    refused("double_quantization", "Quantizes the quantization constants as well in bitsandbytes 4-bit, lowering memory further.",
            llamafactory=(inert("double_quantization", True), inert("no_double_quantization", False)),
            qlora_script=inert("double_quant", True)),
    refused("quantization_type", "Data type of bitsandbytes 4-bit weights.",
            llamafactory=inert("quantization_type", "nf4"), qlora_script=inert("quant_type", "nf4")),
    refused("quantization_method", "Chooses the library that quantizes the base model while it is loaded.",
            llamafactory=inert("quantization_method", "bitsandbytes"), cli_reference=inert("quantization_method", None)),
    refused("use_triton", "Uses Triton kernels for quantized inference.", cli_reference=inert("use_triton", False)),
    refused("use_exllama", "Uses ExLlama kernels for 4-bit inference.", cli_reference=inert("use_exllama", False)),
    refused(
        "quantization_device_map",
        "Device map for running inference with a 4-bit quantized model; auto spreads modules over CPU and GPUs.",
        llamafactory=inert("quantization_device_map", None)),
    refused("quant_recipe", "Selects the low-precision training recipe; null disables it.", mindspeed_fsdp2=inert("quant_recipe", None)),
    refused("quant_format", "Low-precision number format used by the recipe.", mindspeed_fsdp2=inert("quant_format", None)),
    refused("quant_block_size", "Number of elements that share one scale.", mindspeed_fsdp2=inert("quant_block_size", 32)),
    refused("quant_apply_modules", "Module patterns to quantize; {*} matches every index.",
            mindspeed_fsdp2=inert("quant_apply_modules", ['model.layers.{*}'])),
    refused("quant_ignored_modules", "Sub-modules left unquantized.", mindspeed_fsdp2=inert("quant_ignored_modules", ['lm_head'])),
    refused("converters", "Quantization converters applied to matched modules.",
            mindspeed_fsdp2=inert("converters", ['quantize.linear.mx'])),
)

"""Number formats. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("compute_dtype", "Data type in which the model computes (after dequantization when quantized).",
            qlora_script=inert("compute_dtype", "torch.float16")),
    refused("upcast_layernorm", "Keeps LayerNorm weights in fp32.",
            llamafactory=inert("upcast_layernorm", False), cli_reference=inert("upcast_layernorm", False)),
    refused("upcast_lmhead_output", "Casts lm_head output logits to fp32.",
            llamafactory=inert("upcast_lmhead_output", False), cli_reference=inert("upcast_lmhead_output", False)),
    refused("fp32", "Forces float32 training, turning mixed precision off.", cli_reference=inert("fp32", False)),
    refused("tf32", "Enables or disables TF32 matrix math on Ampere GPUs; null leaves the default.",
            llamafactory=inert("tf32", None), cli_reference=inert("tf32", False)),
    refused("fp16_opt_level", "Apex AMP optimization level.", llamafactory=inert("fp16_opt_level", "O1")),
    refused("half_precision_backend", "Backend for half-precision training; auto picks one.",
            llamafactory=(inert("half_precision_backend", "auto"), inert("fp16_backend", "auto", deprecated=True))),
    refused("bf16_full_eval", "Runs evaluation entirely in bfloat16.", llamafactory=inert("bf16_full_eval", False)),
    refused("fp16_full_eval", "Runs evaluation entirely in float16.", llamafactory=inert("fp16_full_eval", False)),
    refused("param_dtype", "Data type in which FSDP stores parameters.", mindspeed_fsdp2=inert("param_dtype", "bf16")),
    refused("reduce_dtype", "Data type of FSDP gradient reduction.", mindspeed_fsdp2=inert("reduce_dtype", "fp32")),
)

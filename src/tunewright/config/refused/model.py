"""Loading models and changing their architecture. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("low_cpu_mem_usage", "Loads weights without first building a second full copy in CPU memory.",
            llamafactory=(inert("low_cpu_mem_usage", True), inert("no_low_cpu_mem_usage", False)),
            cli_reference=(inert("low_cpu_mem_usage", True), inert("no_low_cpu_mem_usage"))),
    refused("rope_scaling", "Chooses the RoPE scaling strategy that extends the context window.",
            llamafactory=inert("rope_scaling", None), cli_reference=inert("rope_scaling", None)),
    refused("shift_attn", "Enables LongLoRA shifted short attention (S^2-Attn) during training on long context.",
            llamafactory=inert("shift_attn", False), cli_reference=inert("shift_attn", False)),
    refused("mixture_of_depths", "Converts the model to Mixture-of-Depths, or loads one already converted.",
            llamafactory=inert("mixture_of_depths", None), cli_reference=inert("mixture_of_depths", None)),
    refused(
        "moe_aux_loss_coef",
        "Weight of the auxiliary router load-balancing loss added for mixture-of-experts models; null keeps the model's value.",
        llamafactory=inert("moe_aux_loss_coef", None), cli_reference=inert("moe_aux_loss_coef", None)),
    refused("train_from_scratch", "Starts from random weights without loading the model's weights.",
            llamafactory=inert("train_from_scratch", False), cli_reference=inert("train_from_scratch", False),
            mindspeed_fsdp2=inert("train_from_scratch", False)),
    refused("strict_dtype", "Loads weights strictly in the dtype named by the configuration.",
            cli_reference=inert("strict_dtype", False)),
    refused("force_auto_device", "Forces automatic device mapping.", cli_reference=inert("force_auto_device", False)),
    refused("use_safetensors", "Loads weights from safetensors files.", cli_reference=inert("use_safetensors", False)),
    refused("device_map", "Maps model layers to GPUs when loading.", cli_reference=inert("device_map", "auto")),
    refused("offload_folder", "Directory that receives model weights offloaded to disk when memory is short.",
            llamafactory=inert("offload_folder", "offload")),
    refused("model_id", "When set, uses this repository's own model forward; unset uses the native Transformers forward.",
            mindspeed_fsdp2=inert("model_id", None)),
    refused("init_model_with_meta_device", "Builds the model on the meta device so initialization takes little memory.",
            mindspeed_fsdp2=inert("init_model_with_meta_device", False)),
)

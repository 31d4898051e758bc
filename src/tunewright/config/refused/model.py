"""Loading models and changing their architecture. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("low_cpu_mem_usage", "Loads weights without first building a second full copy in CPU memory.",
            because="weights are always loaded without a second copy in memory",
            llamafactory=(inert("low_cpu_mem_usage", True), inert("no_low_cpu_mem_usage", False)),
            cli_reference=(inert("low_cpu_mem_usage", True), inert("no_low_cpu_mem_usage"))),
    refused("init_model_with_meta_device", "Builds the model on the meta device so initialization takes little memory.",
            because="the model is always built on the meta device first",
            mindspeed_fsdp2=inert("init_model_with_meta_device", False, True)),
    refused("use_safetensors", "Loads weights from safetensors files.",
            because="weights are always read from safetensors files; others are pickles, which can run code",
            cli_reference=inert("use_safetensors", False, True)),
    refused("force_auto_device", "Forces automatic device mapping.", because="the device is always chosen by the run; use_cpu overrules it",
            cli_reference=inert("force_auto_device", False, True)),
    refused("device_map", "Maps model layers to GPUs when loading.",
            because="each process holds the whole model on its own device", mend="remove it; num_processes says how many devices train",
            cli_reference=inert("device_map", "auto")),
    refused("offload_folder", "Directory that receives model weights offloaded to disk when memory is short.",
            because="weights are never offloaded to disk", llamafactory=inert("offload_folder", "offload")),
    refused("model_id", "When set, uses this repository's own model forward; unset uses the native Transformers forward.",
            because="models run in transformers' own forward, with the kernels that the run chooses and prints",
            mindspeed_fsdp2=inert("model_id", None)),
    refused("mixture_of_depths", "Converts the model to Mixture-of-Depths, or loads one already converted.",
            llamafactory=inert("mixture_of_depths", None), cli_reference=inert("mixture_of_depths", None)),
    refused("strict_dtype", "Loads weights strictly in the dtype named by the configuration.",
            cli_reference=inert("strict_dtype", False)),
)

"""Inference engines. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("infer_backend", "Engine used for inference: Transformers or vLLM.",
            llamafactory=inert("infer_backend", "huggingface"), cli_reference=inert("infer_backend", "hf")),
    refused("use_cache", "Uses the key-value cache during generation.",
            llamafactory=(inert("use_cache", True), inert("no_use_cache", False)),
            cli_reference=(inert("use_cache", True), inert("no_use_cache"))),
    refused("vllm_maxlen", "Caps prompt tokens plus generated tokens per sequence in the vLLM engine.",
            llamafactory=inert("vllm_maxlen", 2048)),
    refused("vllm_gpu_util", "Sets the fraction of GPU memory the vLLM engine may reserve.", llamafactory=inert("vllm_gpu_util", 0.9)),
    refused("vllm_enforce_eager", "Disables CUDA graphs so the vLLM engine runs in eager mode.",
            llamafactory=inert("vllm_enforce_eager", False)),
    refused("vllm_max_lora_rank", "Sets the highest LoRA rank vLLM accepts; adapters above it cannot be loaded.",
            llamafactory=inert("vllm_max_lora_rank", 32)),
    refused("infer_dtype", "Data type of weights and activations at inference; auto takes it from the checkpoint.",
            llamafactory=inert("infer_dtype", "auto")),
    refused("past_index", "When >=0, feeds that output index back as past state on the next step.",
            llamafactory=inert("past_index", -1)),
)

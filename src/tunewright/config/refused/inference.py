"""Inference engines. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("vllm_maxlen", "Caps prompt tokens plus generated tokens per sequence in the vLLM engine.",
            llamafactory=inert("vllm_maxlen", 2048)),
    refused("vllm_gpu_util", "Sets the fraction of GPU memory the vLLM engine may reserve.", llamafactory=inert("vllm_gpu_util", 0.9)),
    refused("vllm_enforce_eager", "Disables CUDA graphs so the vLLM engine runs in eager mode.",
            llamafactory=inert("vllm_enforce_eager", False)),
    refused("vllm_max_lora_rank", "Sets the highest LoRA rank vLLM accepts; adapters above it cannot be loaded.",
            llamafactory=inert("vllm_max_lora_rank", 32)),
    refused("past_index", "When >=0, feeds that output index back as past state on the next step.",
            because="no causal language model gives back a state of that kind; transformers has dropped it", mend="leave it out",
            llamafactory=inert("past_index", -1)),
)

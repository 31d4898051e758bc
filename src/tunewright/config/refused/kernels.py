"""Kernels, compilation and activation memory. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("use_unsloth", "Loads and trains the LoRA model through Unsloth's patched kernels.",
            llamafactory=inert("use_unsloth", False), cli_reference=inert("use_unsloth", False)),
    refused("use_unsloth_gc", "Uses Unsloth's gradient-checkpointing implementation, lowering memory.",
            llamafactory=inert("use_unsloth_gc", False), cli_reference=inert("use_unsloth_gc", False)),
    refused("enable_liger_kernel", "Patches the model with Liger fused kernels for training.",
            llamafactory=(inert("enable_liger_kernel", False), inert("use_liger_kernel", False, today=True)),
            cli_reference=inert("enable_liger_kernel", False)),
    refused("torch_compile", "Compiles the model with torch.compile.",
            llamafactory=inert("torch_compile", False), cli_reference=inert("torch_compile", False)),
    refused("use_ipex", "Uses Intel Extension for PyTorch on CPU.",
            because="Intel has ended the extension and moved its optimisations into torch itself", mend="remove it",
            llamafactory=inert("use_ipex", False)),
    refused("torch_compile_backend", "torch.compile backend, such as inductor.",
            llamafactory=(inert("torch_compile_backend", None), inert("torchdynamo", None, deprecated=True))),
    refused("torch_compile_mode", "torch.compile mode, such as reduce-overhead.", llamafactory=inert("torch_compile_mode", None)),
    refused("recompute_modules", "Module patterns whose activations are recomputed.",
            mindspeed_fsdp2=inert("recompute_modules", ['model.layers.{*}'])),
    refused("gdn_chunk_size", "Chunk size of Gated DeltaNet's block-wise computation.", mindspeed_fsdp2=inert("gdn_chunk_size", 64)),
    refused("use_fused_rmsnorm", "Uses the fused RMSNorm kernel.", mindspeed_fsdp2=inert("use_fused_rmsnorm", False)),
    refused("moe_grouped_gemm", "Uses the fused grouped-matmul kernel for experts.", mindspeed_fsdp2=inert("moe_grouped_gemm", False)),
    refused("use_fused_rotary_pos_emb", "Uses the fused RoPE kernel.", mindspeed_fsdp2=inert("use_fused_rotary_pos_emb", False)),
    refused("use_triton_gdn", "Uses Triton fused kernels for Gated DeltaNet.", mindspeed_fsdp2=inert("use_triton_gdn", False)),
)

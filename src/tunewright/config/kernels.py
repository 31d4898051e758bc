"""Kernels: which fast paths are taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tunewright.config.param import Alias, param

FAST_PATHS: Final = ("prefix", "loss", "lora", "mlp", "norm", "rotary", "weights")
"""The names of the fast paths that can be switched off."""

COMPILE_BACKENDS: Final = ("inductor", "aot_eager", "eager")
"""Backends of torch.compile that a run can have; the last two make no code, and are for finding faults."""
COMPILE_MODES: Final = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")

_ONE_LENGTH: Final = "its graphs hold for batches of one length; torch_compile_mode: reduce-overhead records one for each length"
_ELSEWHERE: Final = "it needs a package of its own that is not supported; inductor makes code for CPUs and GPUs"
_ENDED: Final = "torch no longer has it; inductor makes code for CPUs and GPUs"
REFUSED_BACKENDS: Final[Mapping[str, str]] = {
    "cudagraphs": _ONE_LENGTH, **dict.fromkeys(("tvm", "openxla", "openxla_eval", "onnxrt", "ipex", "hpu_backend", "torch_tensorrt",
                                                "tensorrt"), _ELSEWHERE),
    **dict.fromkeys(("nvfuser", "aot_nvfuser", "aot_cudagraphs", "ofi", "fx2trt"), _ENDED)}

LIGER_LOSSES: Final = ("cross_entropy", "fused_linear_cross_entropy")
"""Switches of Liger's that are always off: the loss comes straight from hidden states."""
_LIGER: Final = "an NVIDIA GPU with the package liger-kernel"


@dataclass(frozen=True, kw_only=True)
class KernelsConfig:
    """Speed and memory; the numbers that are computed are the same."""

    slow_paths: tuple[str, ...] = param(
        (), "Fast paths that are not taken: beginnings that rows of a batch have in common computed once, and nothing behind a row's last "
        "prediction (prefix), the loss straight from hidden states (loss), fused LoRA layers (lora), gated MLPs (mlp), norms (norm), "
        "rotary positions (rotary), and frozen weights in the number format of mixed precision (weights). The same is computed either way; "
        "this is for comparing.", choices=FAST_PATHS, example="loss,norm")
    chunk_loss_size: int | None = param(
        None, "Tokens whose logits exist at a time while the loss is computed; absent means as many as 64 MB hold, on a CPU 31 MB, or "
        "16 MB where the output head trains.", unit="tokens",
        minimum=1, maximum=1 << 20, mindspeed_fsdp2="chunk_loss_size")
    torch_compile: bool = param(
        False, "Compile the decoder layers with torch.compile; LoRA, gated MLPs and norms are then left to the compiler. The first steps "
        "wait for it; what it made is kept in ~/.cache/tunewright/inductor.",
        llamafactory="torch_compile", cli_reference="torch_compile")
    torch_compile_backend: str | None = param(
        None, "Backend of torch.compile; naming one compiles too. Absent means inductor.", choices=COMPILE_BACKENDS,
        refused_values=REFUSED_BACKENDS,
        llamafactory=("torch_compile_backend", Alias("torchdynamo", deprecated=True)), example="inductor")
    torch_compile_mode: str | None = param(
        None, "Mode of inductor; naming one compiles too. max-autotune chooses by the clock, so that two runs may differ in rounding.",
        choices=COMPILE_MODES, llamafactory="torch_compile_mode", example="reduce-overhead")
    use_unsloth_gc: bool = param(
        False, "With gradient checkpointing on an accelerator, keep the inputs of the layers in host memory, copied while the accelerator "
        "computes. On a CPU they are there already.", recorded=False, llamafactory="use_unsloth_gc", cli_reference="use_unsloth_gc")
    enable_liger_kernel: bool = param(
        False, "Use Liger's Triton kernels for norms, gated activations and rotary positions. The loss comes straight from hidden states "
        "already, so its losses are not used.", only_on=_LIGER,
        llamafactory=("enable_liger_kernel", Alias("use_liger_kernel", today=True)), cli_reference="enable_liger_kernel")
    liger_kernel_config: Mapping[str, Any] | None = param(
        None, "Which of Liger's kernels are used, by its names (rope, rms_norm, swiglu, geglu, layer_norm), each true or false; absent "
        "means all that it has for the model.", only_on=_LIGER,
        llamafactory=Alias("liger_kernel_config", convert="mapping", today=True), example='{"rope": false}')
    use_fused_rmsnorm: bool | None = param(
        None, "Compute RMSNorm by torch's single operation. Absent means wherever it has been shown to do what the model's own does.",
        mindspeed_fsdp2=Alias("use_fused_rmsnorm", default=False), example="false")
    use_fused_rotary_pos_emb: bool = param(
        False, "Compute rotary positions by Liger's kernel.", only_on=_LIGER, mindspeed_fsdp2="use_fused_rotary_pos_emb")
    moe_grouped_gemm: bool | None = param(
        None, "Multiply by the weights of all experts in one grouped product; false takes one expert after the other. Absent means as the "
        "model has it.", mindspeed_fsdp2=Alias("moe_grouped_gemm", default=False), example="true")
    gdn_chunk_size: int = param(
        64, "Tokens that a Gated DeltaNet layer takes at a time: more need fewer, larger products. The result is the same.", unit="tokens",
        minimum=1, maximum=4096, mindspeed_fsdp2="gdn_chunk_size")
    use_triton_gdn: bool | None = param(
        None, "Compute Gated DeltaNet layers by the Triton kernels of flash-linear-attention; false takes torch's operations. Absent means "
        "the kernels wherever package and GPU are there.", only_on="an NVIDIA GPU with the package flash-linear-attention",
        mindspeed_fsdp2=Alias("use_triton_gdn", default=False), example="false")

    @property
    def compiles(self) -> bool:
        """Whether layers are compiled: naming a backend or a mode asks for it too, as in transformers."""
        return self.torch_compile or self.torch_compile_backend is not None or self.torch_compile_mode is not None

    @property
    def backend(self) -> str:
        """The backend of torch.compile."""
        return self.torch_compile_backend or "inductor"

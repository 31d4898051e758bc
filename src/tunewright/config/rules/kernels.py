"""Rules on kernels and compilation."""

from __future__ import annotations

from tunewright.config.kernels import LIGER_LOSSES
from tunewright.config.rules.rule import Broken, Case, Rule


def compiled_and_not(case: Case) -> list[Broken]:
    """A file that says `torch_compile: false` and names a backend: transformers would compile."""
    kernels = case.run.kernels
    if kernels.torch_compile or "torch_compile" not in case.given:
        return []
    named = {"torch_compile_backend": kernels.torch_compile_backend, "torch_compile_mode": kernels.torch_compile_mode}
    return [Broken(field, "asks for compiled layers, but torch_compile is off") for field, value in named.items() if value is not None]


def mode_of_another_backend(case: Case) -> str | None:
    kernels = case.run.kernels
    wanted = kernels.torch_compile_mode is not None and kernels.backend != "inductor"
    return f"modes are inductor's, but torch_compile_backend is {kernels.backend}" if wanted else None


def compiled_twice(case: Case) -> list[Broken]:
    kernels = case.run.kernels
    wanted = {"enable_liger_kernel": kernels.enable_liger_kernel, "use_fused_rotary_pos_emb": kernels.use_fused_rotary_pos_emb}
    return [Broken(field, "replaces what torch_compile compiles") for field, value in wanted.items() if value and kernels.compiles]


def norm_fast_and_slow(case: Case) -> str | None:
    wanted = case.run.kernels.use_fused_rmsnorm is True and "norm" in case.run.kernels.slow_paths
    return "norms are to be fused, but slow_paths names them" if wanted else None


def chunks_of_triton(case: Case) -> str | None:
    kernels = case.run.kernels
    wanted = kernels.use_triton_gdn is True and kernels.gdn_chunk_size != 64
    return f"the kernels take 64 tokens at a time, but gdn_chunk_size is {kernels.gdn_chunk_size}" if wanted else None


def gpu_only(case: Case) -> list[Broken]:
    kernels = case.run.kernels
    wanted = {"enable_liger_kernel": kernels.enable_liger_kernel, "use_fused_rotary_pos_emb": kernels.use_fused_rotary_pos_emb,
              "use_triton_gdn": kernels.use_triton_gdn is True}
    return [Broken(field, "is for NVIDIA GPUs, but use_cpu is on") for field, value in wanted.items() if value and case.run.run.use_cpu]


def liger_switches(case: Case) -> str | None:
    given = case.run.kernels.liger_kernel_config or {}
    for name, value in given.items():
        if not isinstance(value, bool):
            return f"'{name}' is {value!r}, which is neither true nor false"
        if value and name in LIGER_LOSSES:
            return f"'{name}' is a loss, and the loss comes straight from hidden states"
    return None


RULES = (
    Rule("compiled-and-not", ("torch_compile", "torch_compile_backend", "torch_compile_mode"), compiled_and_not,
         "set torch_compile: true, or remove it"),
    Rule("mode-of-another-backend", ("torch_compile_mode", "torch_compile_backend"), mode_of_another_backend, "keep one of them"),
    Rule("compiled-twice", ("enable_liger_kernel", "use_fused_rotary_pos_emb", "torch_compile", "torch_compile_backend",
                            "torch_compile_mode"), compiled_twice, "keep one of them"),
    Rule("norm-fast-and-slow", ("use_fused_rmsnorm", "slow_paths"), norm_fast_and_slow, "keep one of them"),
    Rule("chunks-of-triton", ("gdn_chunk_size", "use_triton_gdn"), chunks_of_triton, "set gdn_chunk_size: 64, or use_triton_gdn: false"),
    Rule("gpu-only-kernels", ("enable_liger_kernel", "use_fused_rotary_pos_emb", "use_triton_gdn", "use_cpu"), gpu_only, "remove it"),
    Rule("liger-switches", ("liger_kernel_config",), liger_switches, "write true or false for Liger's kernels other than losses"),
)

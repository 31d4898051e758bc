"""Options on kernels that only some machines can honour, tested before a run begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunewright.errors import InputError
from tunewright.kernels import liger
from tunewright.kernels.compilation import demand_compiler

if TYPE_CHECKING:
    from tunewright.config.kernels import KernelsConfig


def demand_packages(settings: KernelsConfig) -> None:
    """Raise `InputError` if a compiler or a package that the run asks for is absent. Imports neither torch nor transformers."""
    if settings.compiles:
        demand_compiler(settings.backend)
    parameter = liger.asked_by(settings)
    if parameter is not None:
        liger.demand_package(parameter)


def demand_device(settings: KernelsConfig, *, use_cpu: bool) -> None:
    """Raise `InputError` for an option that needs an NVIDIA GPU where the run has none."""
    import torch

    wanted = {"enable_liger_kernel": settings.enable_liger_kernel, "use_fused_rotary_pos_emb": settings.use_fused_rotary_pos_emb,
              "use_triton_gdn": settings.use_triton_gdn is True}
    for parameter, is_on in wanted.items():
        if is_on and (use_cpu or not torch.cuda.is_available()):
            raise InputError(f"{parameter}: needs an NVIDIA GPU, and there is none", mend="remove it")

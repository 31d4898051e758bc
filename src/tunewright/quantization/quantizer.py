"""How a base model is quantised while it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunewright.config.optimization import PrecisionConfig
from tunewright.config.quantization import QuantizationConfig

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Quantizer:
    """How quantised weights are opened. `settings`: the library's own, to quantise while loading; None for weights that are opened as
    they are in the files, floats or quantised already. `device_map`: where quantised weights go, in accelerate's words."""

    bits: int | None
    settings: Any | None
    device_map: str | dict[str, Any]


def quantizer(config: QuantizationConfig, precision: PrecisionConfig, *, use_cpu: bool) -> Quantizer:
    """The quantizer of a run. Products are computed in `compute_dtype`, else in the format of mixed precision, else in float32.
    Raises InputError if the library is absent.

    Quantisation rounds each block to the nearest code: the same weights give the same bits every time, so a resumed run stands on
    the very base that it was interrupted on.
    """
    device_map = config.quantization_device_map or {"": _here(use_cpu)}
    if config.quantization_bit is None:
        return Quantizer(None, None, device_map)
    from tunewright.quantization.bitsandbytes import settings

    format_ = config.compute_dtype or ("bfloat16" if precision.bf16 or precision.pure_bf16 else "float16" if precision.fp16 else "float32")
    return Quantizer(config.quantization_bit, settings(config, format_), device_map)


def _here(use_cpu: bool) -> torch.device:
    """This process's accelerator, or the CPU."""
    import torch

    found = None if use_cpu else torch.accelerator.current_accelerator(check_available=True)
    return torch.device("cpu") if found is None else torch.device(found.type, torch.accelerator.current_device_index())

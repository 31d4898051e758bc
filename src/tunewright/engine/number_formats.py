"""Number formats that differ from those of the training weights: evaluation in half precision, normalisation in float32."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch

from tunewright.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from tunewright.config.optimization import PrecisionConfig

_HALVES = (torch.bfloat16, torch.float16)


def evaluation_dtype(precision: PrecisionConfig) -> torch.dtype | None:
    """The format to which weights are rounded for evaluation; None leaves them."""
    if precision.bf16_full_eval:
        return torch.bfloat16
    return torch.float16 if precision.fp16_full_eval else None


def prepare_device(precision: PrecisionConfig, *, use_cpu: bool) -> None:
    """Allow or forbid TensorFloat-32 as the run says. Raises InputError for an option that this machine's devices cannot honour."""
    has_accelerator = torch.accelerator.is_available() and not use_cpu
    if precision.fp16 and not has_accelerator:
        raise InputError("fp16: mixed precision with float16 needs an accelerator, and there is none",
                         mend="write fp16: false, or bf16: true")
    if precision.torch_empty_cache_steps is not None and not has_accelerator:
        raise InputError("torch_empty_cache_steps: is for accelerators, and there is none", mend="remove it")
    if precision.tf32 and not (has_accelerator and torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)):
        raise InputError("tf32: needs an NVIDIA GPU of the Ampere generation or later, and there is none", mend="remove it")
    if precision.tf32 is not None:
        torch.backends.cuda.matmul.allow_tf32 = precision.tf32
        torch.backends.cudnn.allow_tf32 = precision.tf32


@contextmanager
def weights_in(models: Iterable[nn.Module], dtype: torch.dtype | None) -> Iterator[None]:
    """The models' weights rounded to `dtype` inside the block, and the very tensors they were after it. Buffers, such as the
    frequencies of rotary positions, stay: half precision is too coarse for them."""
    kept = [(weight, weight.data) for model in models for weight in model.parameters()
            if dtype is not None and weight.is_floating_point()]
    try:
        for weight, data in kept:
            weight.data = data.to(dtype)
        yield
    finally:
        for weight, data in kept:
            weight.data = data


class _ComputeInFloat32:
    """The two hooks of one normalisation layer: its input goes up, its output comes down again."""

    def __init__(self) -> None:
        self._dtype = torch.float32

    def before(self, _module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """The hidden state as float32."""
        self._dtype = inputs[0].dtype
        return (inputs[0].float(), *inputs[1:])

    def after(self, _module: nn.Module, _inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        """The result in the format of the hidden state."""
        return output.to(self._dtype)


def upcast_norms(model: nn.Module) -> list[str]:
    """Keep the half-precision weights of normalisation layers, and compute these layers, in float32. Returns the weights' names."""
    names = []
    for name, module, weights in _norms(model):
        halves = {part: weight for part, weight in weights.items() if weight.dtype in _HALVES}
        for weight in halves.values():
            weight.data = weight.data.float()
        if halves:
            both = _ComputeInFloat32()
            module.register_forward_pre_hook(both.before)
            module.register_forward_hook(both.after)
        names += [f"{name}.{part}" for part in halves]
    return names


def wide_norms(model: nn.Module) -> list[str]:
    """The names of the normalisation weights that are in float32."""
    return [f"{name}.{part}" for name, _, weights in _norms(model) for part, weight in weights.items() if weight.dtype == torch.float32]


def _norms(model: nn.Module) -> Iterator[tuple[str, nn.Module, dict[str, nn.Parameter]]]:
    """Each normalisation layer, by its class, with its weights; they are vectors."""
    for name, module in model.named_modules():
        own = {part: weight for part, weight in module.named_parameters(recurse=False) if weight.ndim == 1}
        if own and "norm" in type(module).__name__.lower():
            yield name, module, own


def read_exactly(model: nn.Module, names: Iterable[str], directory: Path) -> None:
    """Put the named float32 weights of a checkpoint back bit by bit, which loading the model in half precision rounded.

    Raises InputError if the checkpoint has not got one of them.
    """
    from peft import PeftModel
    from safetensors import safe_open

    from tunewright.adapters.trainable import load_trained

    if isinstance(model, PeftModel):
        load_trained(model, directory)
        return
    missing = {name: cast("torch.Tensor", model.get_parameter(name)) for name in names}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in set(missing) & set(file.keys()):
                missing.pop(name).data.copy_(file.get_tensor(name))
    if missing:
        raise InputError(f"the checkpoint has no {min(missing)}", where=str(directory), mend="resume without upcast_layernorm")

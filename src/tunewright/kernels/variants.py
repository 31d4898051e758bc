"""Ways of computing a part of a model that transformers has several of: the experts of a mixture, and Gated DeltaNet layers.

Experts: one product after the other for each expert that a token chose, or one grouped product for all (torch's grouped_mm).
Gated DeltaNet (Yang et al. 2024, arXiv 2412.06464, section 3.3): the recurrence is cut into chunks, within which it is a few products of
matrices; the result does not depend on their size. Triton kernels for it are in the package flash-linear-attention.
"""

from __future__ import annotations

import inspect
from functools import partial
from importlib.util import find_spec
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from tunewright.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tunewright.config.kernels import KernelsConfig

_FLA: Final = "fla"
_RULE: Final = "torch_chunk_gated_delta_rule"
"""The function of transformers by which Gated DeltaNet layers compute whole sequences."""
USUAL_CHUNK: Final = 64
_EXPERTS: Final = {True: ("grouped_mm", "experts: one grouped product for all (moe_grouped_gemm)"),
                   False: ("eager", "experts: one after the other (moe_grouped_gemm: false)")}


def choose_variants(settings: KernelsConfig, model: PreTrainedModel, *, on_gpu: bool) -> tuple[str, ...]:
    """Switch experts and Gated DeltaNet layers of a model over as the run says; a line for each choice.

    `on_gpu`: the model will compute on an NVIDIA GPU.
    """
    return (*_experts(settings.moe_grouped_gemm, model), *_delta_layers(settings, model, on_gpu=on_gpu))


def _experts(grouped: bool | None, model: PreTrainedModel) -> tuple[str, ...]:
    if grouped is None:
        return ()
    name, line = _EXPERTS[grouped]
    if not any(hasattr(module, "_is_expert_parallel") for module in model.modules()):
        return ("moe_grouped_gemm: the model has no experts that can be grouped",) if grouped else ()
    model.set_experts_implementation(name)
    return (line,)


def _delta_layers(settings: KernelsConfig, model: PreTrainedModel, *, on_gpu: bool) -> tuple[str, ...]:
    layers = [module for module in model.modules() if _RULE in _names(module)]
    if not layers:
        return ("use_triton_gdn: the model has no Gated DeltaNet layers",) if settings.use_triton_gdn else ()
    if settings.use_triton_gdn:
        _demand_fla()
    has_kernels = find_spec(_FLA) is not None
    takes_kernels = has_kernels and on_gpu and settings.use_triton_gdn is not False and settings.gdn_chunk_size == USUAL_CHUNK
    if takes_kernels:
        return (f"Gated DeltaNet: the kernels of flash-linear-attention ({len(layers)} layers)",)
    if has_kernels or settings.gdn_chunk_size != USUAL_CHUNK:  # else transformers' own choice is what is wanted
        for layer in layers:
            _compute_in_chunks(layer, settings.gdn_chunk_size)
    return (f"Gated DeltaNet: torch's operations on {settings.gdn_chunk_size} tokens at a time ({len(layers)} layers)",)


def _demand_fla() -> None:
    if find_spec(_FLA) is None:
        raise InputError("use_triton_gdn: needs the package flash-linear-attention, which is not installed",
                         mend="run: pip install flash-linear-attention, or remove use_triton_gdn")


def _names(module: nn.Module) -> tuple[str, ...]:
    """The names that a module's forward looks up."""
    own = inspect.unwrap(type(module).forward)
    return own.__code__.co_names if isinstance(own, FunctionType) else ()


def _compute_in_chunks(layer: nn.Module, size: int) -> None:
    """Give one layer a forward that reads `size` where its own reads a constant of its file; the file itself is left alone.

    The names it looks up do not say whose they are: torch.compile would look them up in the file that they name.
    """
    own: Any = inspect.unwrap(type(layer).forward)
    rule = partial(inspect.unwrap(own.__globals__[_RULE]), chunk_size=size)
    names = {name: value for name, value in own.__globals__.items() if name != "__name__"} | {_RULE: rule}
    ours = FunctionType(own.__code__, names, own.__name__, own.__defaults__, own.__closure__)
    ours.__kwdefaults__ = own.__kwdefaults__
    layer.forward = MethodType(ours, layer)


def computes_on_gpu(*, use_cpu: bool) -> bool:
    """Whether a run of this machine computes on an NVIDIA GPU."""
    return torch.cuda.is_available() and not use_cpu

"""Decoder layers compiled by torch.compile, one code for all layers of a kind.

Naive equivalent: the layers' own forward. A compiled layer computes the same; its operations are fused and its sums may round otherwise.
Only `forward` of the instances changes, so names of parameters, hooks and what a checkpoint holds stay. Lengths are symbols of the
compiled code: batches of other lengths do not compile anew. Attention that walks over the rows of a batch reads lengths from a
tensor, which no graph can hold: it stays as it is, and the code before and after it is compiled.

While a model does not train, its layers run as they are: what is evaluated or generated never waits for the compiler.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tunewright.errors import InputError, require
from tunewright.models.demo_model import cache_root

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from tunewright.config.kernels import KernelsConfig

CACHE: Final = "TORCHINDUCTOR_CACHE_DIR"
"""The environment variable by which torch is told where to keep what it made."""
_OWN: Final = "tunewright_"
"""How the names of our attention functions begin."""

Forward = Callable[..., Any]


def demand_compiler(backend: str) -> None:
    """Raise `InputError` if the C++ compiler that inductor calls is not there. torch takes $CXX, else g++ (clang++ on macOS)."""
    named = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if backend == "inductor" and shutil.which(named) is None:
        raise InputError(f"torch_compile: inductor needs a C++ compiler, and {named} is not there",
                         mend="install g++, or name a compiler in the environment variable CXX, or remove torch_compile")


def keep_cache() -> Path:
    """Where compiled code is kept from run to run: $TORCHINDUCTOR_CACHE_DIR, else ~/.cache/tunewright/inductor, which it is set to."""
    return Path(os.environ.setdefault(CACHE, str(cache_root() / "inductor")))


def compile_layers(model: nn.Module, settings: KernelsConfig) -> int:
    """Give every decoder layer a forward that is compiled when it first runs; returns how many there are.

    Raises `InputError` for a model without decoder layers of transformers, or whose layers have another forward already.
    """
    import torch

    layers = [layer for layer in _decoder_layers(model) if "forward" not in layer.__dict__]
    require(bool(layers), "torch_compile: the model has no decoder layers that transformers tells apart from the rest",
            mend="remove torch_compile")
    keep_cache()
    _keep_attention_out(model)
    mode = settings.torch_compile_mode if settings.backend == "inductor" else None
    compiled: dict[type, Forward] = {}
    for layer in layers:
        if type(layer) not in compiled:
            compiled[type(layer)] = torch.compile(_own_forward(layer), backend=settings.backend, mode=mode, dynamic=True)
        layer.forward = partial(_forward, compiled[type(layer)], layer)
    return len(layers)


def release_layers(model: nn.Module) -> None:
    """Give the layers their own forward again."""
    for layer in _decoder_layers(model):
        if getattr(layer.__dict__.get("forward"), "func", None) is _forward:
            del layer.__dict__["forward"]


def compiled_graphs() -> int:
    """How many graphs torch has compiled in this process."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def _forward(compiled: Forward, layer: Any, *arguments: Any, **settings: Any) -> Any:
    """A checkpoint, if there is one, goes around the compiled code: what is recomputed is the compiled code again."""
    if not layer.training:
        return type(layer).forward(layer, *arguments, **settings)
    run = partial(compiled, layer, **settings)
    return layer._gradient_checkpointing_func(run, *arguments) if layer.gradient_checkpointing else run(*arguments)


def _own_forward(layer: nn.Module) -> Forward:
    """What transformers wraps with the checkpoint."""
    own = type(layer).forward
    inner: Forward = getattr(own, "__wrapped__", own)
    return inner


def _decoder_layers(model: nn.Module) -> list[nn.Module]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def _keep_attention_out(model: nn.Module) -> None:
    """Tell the compiler to leave our own attention functions as they are."""
    import torch
    from transformers import AttentionInterface
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    base: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    name = base.config._attn_implementation
    if isinstance(name, str) and name.startswith(_OWN):
        AttentionInterface.register(name, torch.compiler.disable(ALL_ATTENTION_FUNCTIONS[name]))

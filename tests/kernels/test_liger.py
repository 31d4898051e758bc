"""Which of Liger's kernels are put into a model. The package needs a GPU: a stand-in with its documented switches takes its place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from tests.kernels.test_isolation import tiny, with_adapter
from tunewright.config.kernels import KernelsConfig
from tunewright.errors import InputError
from tunewright.kernels.liger import apply_kernels, demand_package

LLAMA = {"rope": True, "cross_entropy": False, "fused_linear_cross_entropy": True, "rms_norm": True, "swiglu": True}
"""Switches and defaults of liger-kernel 0.8 for Llama, by its documentation."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[nn.Module, dict[str, bool]]]]:
    """What the package is asked to do."""
    seen: list[tuple[nn.Module, dict[str, bool]]] = []

    def for_llama(rope: bool = True, cross_entropy: bool = False, fused_linear_cross_entropy: bool = True, rms_norm: bool = True,
                  swiglu: bool = True, model: Any = None) -> None:
        seen.append((model, {"rope": rope, "cross_entropy": cross_entropy, "fused_linear_cross_entropy": fused_linear_cross_entropy,
                             "rms_norm": rms_norm, "swiglu": swiglu}))

    def for_gemma2(geglu: bool = True, model: Any = None) -> None:
        seen.append((model, {"geglu": geglu}))

    names = ("liger_kernel", "liger_kernel.transformers", "liger_kernel.transformers.monkey_patch")
    for name in names:
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules[names[-1]].MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": for_llama, "gemma2": for_gemma2}  # type: ignore[attr-defined]
    yield seen


@pytest.mark.parametrize(("settings", "on"), [
    ({"enable_liger_kernel": True}, {"rope", "rms_norm", "swiglu"}),
    ({"enable_liger_kernel": True, "liger_kernel_config": {"rope": False, "cross_entropy": False}}, {"rms_norm", "swiglu"}),
    ({"enable_liger_kernel": True, "liger_kernel_config": {"rope": False}, "use_fused_rotary_pos_emb": True},
     {"rope", "rms_norm", "swiglu"}),
    ({"use_fused_rotary_pos_emb": True}, {"rope"}),
])
def test_losses_are_never_liger_s(calls: list[Any], settings: dict[str, Any], on: set[str]) -> None:
    """Every switch is given, so that the package's defaults decide nothing; the model is the one inside its adapter."""
    model = with_adapter(tiny("llama"))
    assert set(apply_kernels(model, KernelsConfig(**settings))) == on
    ((given, switches),) = calls
    assert given is model.get_base_model()
    assert switches == {name: name in on for name in LLAMA}


def test_nothing_is_done_unless_asked(calls: list[Any]) -> None:
    assert apply_kernels(tiny("llama"), KernelsConfig()) == () and calls == []


@pytest.mark.parametrize(("kind", "settings", "said"), [
    ("qwen3", {"enable_liger_kernel": True}, "enable_liger_kernel: Liger has no kernels for qwen3 models"),
    ("gemma2", {"use_fused_rotary_pos_emb": True}, "use_fused_rotary_pos_emb: Liger has no kernel of rotary positions for gemma2 models"),
    ("llama", {"enable_liger_kernel": True, "liger_kernel_config": {"rms_nrom": False}},
     "liger_kernel_config: 'rms_nrom' is not one of Liger's kernels for llama models: rope, rms_norm, swiglu"),
])
def test_what_liger_does_not_have_is_refused(calls: list[Any], kind: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        apply_kernels(tiny(kind), KernelsConfig(**settings))
    assert error.value.message == said and calls == []


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunewright.kernels.liger.find_spec", lambda name: None)
    with pytest.raises(InputError) as error:
        demand_package("enable_liger_kernel")
    assert error.value.message == (
        "training with Liger's kernels (enable_liger_kernel) needs the package `liger-kernel`, which is not installed")
    assert error.value.mend == 'run: pip install "tunewright[liger]"'


@pytest.mark.skipif(not torch.cuda.is_available(), reason="Liger's kernels run on GPUs")
def test_on_a_gpu() -> None:
    """Loss and gradients of the model's own code, in float32, relative to the norm of each."""
    pytest.importorskip("liger_kernel")
    ids = torch.randint(64, (2, 64), device="cuda")

    def step(model: nn.Module) -> list[torch.Tensor]:
        model.zero_grad()
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        return [loss.detach(), *(one.grad.clone() for one in model.parameters() if one.grad is not None)]

    model = tiny("llama").float().cuda().train()
    wanted = step(model)
    assert set(apply_kernels(model, KernelsConfig(enable_liger_kernel=True))) == {"rope", "rms_norm", "swiglu"}
    for found, one in zip(step(model), wanted, strict=True):
        assert float((found - one).norm() / one.norm()) < 1e-5

"""Experts and Gated DeltaNet layers, computed in several ways. Oracles: transformers' experts one by one, its recurrence by token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tests.kernels.test_isolation import SHAPE, tiny
from tunewright.config.kernels import KernelsConfig
from tunewright.errors import InputError
from tunewright.kernels import variants
from tunewright.kernels.compilation import compile_layers, compiled_graphs
from tunewright.kernels.variants import choose_variants, computes_on_gpu
from tunewright.selftest.tiny import DELTA_NET

IDS = torch.randint(64, (2, 23), generator=torch.Generator().manual_seed(1))


class Seen(TorchFunctionMode):
    """Notes the calls of some functions of torch, with the shape of the first argument."""

    def __init__(self, *functions: Any) -> None:
        super().__init__()
        self.functions, self.shapes = functions, []

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), settings: Any = None) -> Any:
        if function in self.functions:
            self.shapes.append(tuple(arguments[0].shape))
        return function(*arguments, **(settings or {}))


def delta_net() -> Any:
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(2)
    shape = {name: value for name, value in SHAPE.items() if name not in ("layer_types", "head_dim")}
    config = transformers.Qwen3NextConfig(**{**shape, **DELTA_NET})
    return transformers.AutoModelForCausalLM.from_config(config, experts_implementation="eager").train()


def step(model: nn.Module) -> dict[str, Tensor]:
    model.zero_grad()
    loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
    loss.backward()
    return {"loss": loss.detach(), **{name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}}


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    """Loss and every gradient, relative to its norm, to 1e-5: float32 added up in another order."""
    return found.keys() == wanted.keys() and all(
        float((found[name] - one).norm()) <= 1e-5 * max(float(one.norm()), 1e-3) for name, one in wanted.items())


@pytest.mark.parametrize("kind", ["qwen3_moe", "gpt_oss"])
def test_experts_in_one_product(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and every gradient, the router's and the experts' included."""
    grouped, calls = torch.nn.functional.grouped_mm, []

    def counted(*arguments: Any, **settings: Any) -> Tensor:
        calls.append(arguments[0].shape)
        return grouped(*arguments, **settings)

    monkeypatch.setattr(torch.nn.functional, "grouped_mm", counted)
    model = tiny(kind).float().train()
    wanted = step(model)
    assert choose_variants(KernelsConfig(moe_grouped_gemm=True), model, on_gpu=False) == (
        "experts: one grouped product for all (moe_grouped_gemm)",)
    assert same(step(model), wanted)
    assert len(calls) == 4  # up and down in two layers
    assert choose_variants(KernelsConfig(moe_grouped_gemm=False), model, on_gpu=False) == (
        "experts: one after the other (moe_grouped_gemm: false)",)
    calls.clear()
    again = step(model)
    assert calls == [] and all(torch.equal(again[name], one) for name, one in wanted.items())


def test_models_without_such_parts() -> None:
    """A dense model: what is asked for in vain is told, what is not asked for is not."""
    model = tiny("llama")
    assert choose_variants(KernelsConfig(), model, on_gpu=True) == ()
    assert choose_variants(KernelsConfig(moe_grouped_gemm=False, use_triton_gdn=False), model, on_gpu=True) == ()
    assert choose_variants(KernelsConfig(moe_grouped_gemm=True, use_triton_gdn=True), model, on_gpu=True) == (
        "moe_grouped_gemm: the model has no experts that can be grouped", "use_triton_gdn: the model has no Gated DeltaNet layers")


@pytest.mark.parametrize(("size", "chunks"), [(64, 1), (8, 3), (5, 5), (1, 23)])
def test_chunks_of_gated_delta_net(size: int, chunks: int) -> None:
    """Of 23 tokens, ceil(23 / size) chunks; loss and gradients are those of the recurrence, token by token."""
    model = delta_net()
    wanted = step(by_token(model))
    (line,) = choose_variants(KernelsConfig(gdn_chunk_size=size), model, on_gpu=False)
    assert line == f"Gated DeltaNet: torch's operations on {size} tokens at a time (1 layers)"
    with Seen(torch.linalg.solve_triangular) as seen:
        assert same(step(model), wanted)
    assert {shape[2:] for shape in seen.shapes} == {(chunks, size, size)}


def by_token(model: nn.Module) -> nn.Module:
    """The same weights, computed by the recurrence of the paper (equation 10) as transformers writes it out."""
    from transformers.models.qwen3_next import modeling_qwen3_next as code

    other = delta_net()
    other.load_state_dict(model.state_dict())
    layer = other.model.layers[0].linear_attn
    variants._compute_in_chunks(layer, 1)
    recurrence = code.torch_recurrent_gated_delta_rule.__wrapped__
    layer.forward.__func__.__globals__[variants._RULE] = lambda *tensors, **settings: recurrence(
        *tensors, **{name: value for name, value in settings.items() if name not in ("chunk_size", "cu_seqlens")})
    return other


@pytest.mark.parametrize(("installed", "on_gpu", "wanted", "size", "kernels"), [
    (True, True, None, 64, True), (True, True, True, 64, True), (True, True, False, 64, False), (True, False, None, 64, False),
    (True, True, None, 32, False), (False, True, None, 64, False)])
def test_kernels_are_taken_where_they_can_run(
    monkeypatch: pytest.MonkeyPatch, installed: bool, on_gpu: bool, wanted: bool | None, size: int, kernels: bool,
) -> None:
    """Transformers takes them wherever the package is, on a CPU too; torch's operations are then put in their place."""
    monkeypatch.setattr(variants, "find_spec", lambda name: object() if installed else None)
    model = delta_net()
    (line,) = choose_variants(KernelsConfig(use_triton_gdn=wanted, gdn_chunk_size=size), model, on_gpu=on_gpu)
    assert ("kernels of flash-linear-attention" in line) is kernels
    assert ("forward" in model.model.layers[0].linear_attn.__dict__) is (not kernels and (installed or size != 64))


@pytest.mark.slow
@pytest.mark.parametrize(("make", "settings", "backend"), [
    (delta_net, {"gdn_chunk_size": 7}, "eager"), (lambda: tiny("qwen3_moe").float().train(), {"moe_grouped_gemm": True}, "aot_eager")],
    ids=["chunks", "experts"])
def test_the_compiler_takes_the_variant(make: Any, settings: dict[str, Any], backend: str) -> None:
    """Compiled layers compute what the model's own code does, and not by leaving everything out."""
    torch.compiler.reset()
    model = make()
    wanted = step(model)
    choose_variants(KernelsConfig(**settings), model, on_gpu=False)
    compile_layers(model, KernelsConfig(torch_compile=True, torch_compile_backend=backend))
    before = compiled_graphs()
    assert same(step(model), wanted)
    assert compiled_graphs() > before
    torch.compiler.reset()


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="use_triton_gdn: needs the package flash-linear-attention, which is not installed"):
        choose_variants(KernelsConfig(use_triton_gdn=True), delta_net(), on_gpu=True)


def test_a_run_on_the_cpu_does_not_compute_on_a_gpu() -> None:
    assert not computes_on_gpu(use_cpu=True)
    assert computes_on_gpu(use_cpu=False) is torch.cuda.is_available()

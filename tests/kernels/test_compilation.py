"""Compiled decoder layers. Oracle: the same model, not compiled, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.kernels.test_isolation import MODELS, SHAPE, gradients, sequences, tiny, with_adapter
from tunewright.config.kernels import COMPILE_BACKENDS, COMPILE_MODES, REFUSED_BACKENDS, KernelsConfig
from tunewright.data.collate import Batch, collate_flat, collate_padded
from tunewright.errors import InputError
from tunewright.kernels import packed_attention, packed_eager
from tunewright.kernels.compilation import compile_layers, compiled_graphs, demand_compiler, keep_cache, release_layers
from tunewright.stages.causal_lm import next_token_loss

LENGTHS = ([5, 9], [12, 3, 7], [4, 4, 4, 4], [30], [2, 17], [6, 6])
EAGER = KernelsConfig(torch_compile=True, torch_compile_backend="eager")


@pytest.fixture(autouse=True)
def fresh(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing compiled before, attention as it is afterwards, and a cache that is shared by the tests of this process only."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "inductor"))
    torch.compiler.reset()
    packed_attention.register()
    packed_eager.register()
    yield
    torch.compiler.reset()
    packed_attention.register()
    packed_eager.register()


def flat() -> list[Batch]:
    """Batches laid end to end, each of another length."""
    return [collate_flat(sequences([lengths], seed)) for seed, lengths in enumerate(LENGTHS)]


def padded() -> list[Batch]:
    """Two rows each, padded."""
    return [collate_padded(sequences([[lengths[0]], [lengths[-1] + 3]], seed), 0) for seed, lengths in enumerate(LENGTHS)]


def loss_and_gradients(model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss = next_token_loss(model, batch).sum
    loss.backward()
    return {"loss": loss.detach(), **gradients(model)}


def worst(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """The largest difference in a tensor relative to its norm."""
    assert found.keys() == wanted.keys()
    return max(float((found[name] - one).norm() / one.norm().clamp(min=1e-12)) for name, one in wanted.items())


def trained(kind: str, *, adapter: bool, checkpoint: bool, attention: str = packed_attention.NAME) -> nn.Module:
    model = tiny(kind, attention)
    model = (with_adapter(model) if adapter else model).train()
    if checkpoint:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    return model


@pytest.mark.parametrize(("kind", "attention", "adapter", "checkpoint", "graphs"), [
    ("llama", packed_attention.NAME, False, False, 4),
    pytest.param("llama", packed_attention.NAME, True, False, 7, marks=pytest.mark.slow),
    pytest.param("llama", packed_attention.NAME, True, True, 4, marks=pytest.mark.slow),
    pytest.param("gemma2", packed_eager.NAME, True, True, 4, marks=pytest.mark.slow)])
def test_the_same_is_computed_by_few_graphs(kind: str, attention: str, adapter: bool, checkpoint: bool, graphs: int) -> None:
    """Loss and every gradient to rounding, over batches of six lengths, none of which compiles anew: two layers share the code before
    and after attention; with an adapter the first layer's input needs no gradient, and that is a kind of its own."""
    model, batches = trained(kind, adapter=adapter, checkpoint=checkpoint, attention=attention), flat()
    wanted = [loss_and_gradients(model, batch) for batch in batches]
    names = list(model.state_dict())
    assert compile_layers(model, EAGER) == 2
    before = compiled_graphs()
    found = [loss_and_gradients(model, batches[0])]
    after = compiled_graphs()
    assert 0 < after - before <= graphs
    found += [loss_and_gradients(model, batch) for batch in batches[1:]]
    assert compiled_graphs() == after
    assert max(map(worst, found, wanted)) < 1e-12
    assert list(model.state_dict()) == names


def test_padded_rows() -> None:
    """One graph for the whole layer: transformers' own attention is part of it."""
    model = trained("llama", adapter=True, checkpoint=False, attention="sdpa")
    wanted = [loss_and_gradients(model, batch) for batch in padded()]
    compile_layers(model, EAGER)
    before = compiled_graphs()
    assert max(map(worst, [loss_and_gradients(model, batch) for batch in padded()], wanted)) < 1e-12
    assert 1 <= compiled_graphs() - before <= 2


def has_compiler() -> bool:
    """Whether inductor has its C++ compiler, by the function that `check` asks."""
    try:
        demand_compiler("inductor")
    except InputError:
        return False
    return True


def backends() -> tuple[str, ...]:
    """aot_eager everywhere: all of torch.compile but the code that is made. Inductor besides, wherever it can work."""
    return ("aot_eager", "inductor") if has_compiler() else ("aot_eager",)


@pytest.mark.slow
@pytest.mark.parametrize("backend", backends())
def test_float32_is_as_exact_as_without(backend: str) -> None:
    """Every weight and LoRA with checkpoints. The oracle is the model itself in float64, not compiled: over all gradients of batches of
    six lengths, the norm of the difference relative to the norm is at most 1e-5, or what float32 without the compiler has."""
    for adapter in (False, True):
        model, exact = (trained("llama", adapter=adapter, checkpoint=adapter) for _ in range(2))
        exact.load_state_dict(model.float().state_dict())
        wanted = over_batches(exact)
        plain = over_batches(model)
        compile_layers(model, KernelsConfig(torch_compile=True, torch_compile_backend=backend))
        before = compiled_graphs()
        found = over_batches(model)
        assert 0 < compiled_graphs() - before <= 4
        assert error(found, wanted) <= max(1e-5, error(plain, wanted))
    assert backend != "inductor" or any(keep_cache().rglob("*.so"))


def over_batches(model: nn.Module) -> list[dict[str, torch.Tensor]]:
    """Loss and gradients of each batch, in float64 whatever they were computed in."""
    return [{name: one.double() for name, one in loss_and_gradients(model, batch).items()} for batch in flat()]


def error(found: list[dict[str, torch.Tensor]], wanted: list[dict[str, torch.Tensor]]) -> float:
    """Norm of the difference over the norm: of all gradients of all batches together, or of the losses where that is larger."""
    assert [one.keys() for one in found] == [one.keys() for one in wanted]

    def norm(several: list[list[torch.Tensor]]) -> float:
        return float(torch.cat([tensor.reshape(-1) for one in several for tensor in one]).norm())

    names = [name for name in wanted[0] if name != "loss"]
    return max(norm([[one[name] - other[name] for name in part] for one, other in zip(found, wanted, strict=True)])
               / norm([[one[name] for name in part] for one in wanted]) for part in (names, ["loss"]))


def test_only_training_is_compiled() -> None:
    """In evaluation the layers run as they are, and after release in training too."""
    model, (batch, *_) = trained("llama", adapter=False, checkpoint=False), flat()
    compile_layers(model, EAGER)
    before = compiled_graphs()
    with torch.no_grad():
        next_token_loss(model.eval(), batch)
    assert compiled_graphs() == before
    release_layers(model.train())
    loss_and_gradients(model, batch)
    assert compiled_graphs() == before and not any("forward" in module.__dict__ for module in model.modules())


@pytest.mark.slow
def test_depth_needs_no_more_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve layers run the code of two, though layers that slide and layers that do not take turns."""
    graphs = []
    for layers in (2, 12):
        monkeypatch.setitem(SHAPE, "num_hidden_layers", layers)
        monkeypatch.setitem(MODELS["gemma2"], "layer_types", ["sliding_attention", "full_attention"] * (layers // 2))
        torch.compiler.reset()
        before = compiled_graphs()
        model = trained("gemma2", adapter=False, checkpoint=False, attention=packed_eager.NAME)
        assert compile_layers(model, EAGER) == layers
        loss_and_gradients(model, flat()[0])
        graphs.append(compiled_graphs() - before)
    assert graphs[0] == graphs[1] > 0


@pytest.mark.parametrize(("settings", "asked"), [
    ({"torch_compile": True}, {"backend": "inductor", "mode": None, "dynamic": True}),
    ({"torch_compile_mode": "reduce-overhead"}, {"backend": "inductor", "mode": "reduce-overhead", "dynamic": True}),
    ({"torch_compile_backend": "aot_eager"}, {"backend": "aot_eager", "mode": None, "dynamic": True})])
def test_what_torch_is_asked_for(settings: dict[str, Any], asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for both layers, which are of one kind."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(torch, "compile", lambda forward, **settings: (calls.append(settings), forward)[1])
    model = trained("llama", adapter=False, checkpoint=False)
    assert compile_layers(model, KernelsConfig(**settings)) == 2
    assert calls == [asked]


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(InputError, match="torch_compile: the model has no decoder layers"):
        compile_layers(nn.Linear(2, 2), EAGER)


def test_a_missing_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only inductor needs one."""
    monkeypatch.setenv("CXX", "absent-c++")
    with pytest.raises(InputError, match=r"torch_compile: inductor needs a C\+\+ compiler, and absent-c\+\+ is not there"):
        demand_compiler("inductor")
    demand_compiler("eager")


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the folder for what can be made again, unless torch has been told of another."""
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
    assert keep_cache() == Path("/elsewhere")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    assert keep_cache() == tmp_path / "inductor"


def test_names_are_those_of_torch() -> None:
    """The names are written down so that `check` need not import torch. Of torch's own, those that are offered to no user are left out."""
    assert set(COMPILE_BACKENDS) <= set(torch._dynamo.list_backends(None))
    assert set(torch._dynamo.list_backends()) <= {*COMPILE_BACKENDS, *REFUSED_BACKENDS}
    assert set(COMPILE_MODES) == set(torch._inductor.list_mode_options()) - {"lite"}

"""Frozen weights in the number format of mixed precision. Oracle: the same with those weights in float32, to the last bit."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import linear

from tests.effects.engine_runs import run as trained
from tests.effects.engine_runs import weights
from tests.kernels.test_families import FAMILIES, ROWS, lively, shape
from tests.kernels.test_isolation import gradients, tiny
from tunewright.adapters.trainable import make_trainable
from tunewright.config.run import RunConfig
from tunewright.data.collate import collate_flat_shared
from tunewright.dialects.read import read_config
from tunewright.kernels import frozen_weights
from tunewright.kernels.frozen_weights import narrow, widened
from tunewright.kernels.plan import apply, hasten, share_beginnings
from tunewright.kernels.taken import Taken
from tunewright.planning.shapes import shape_model
from tunewright.selftest.workspace import Workspace, results
from tunewright.stages.sft import SupervisedFineTuning
from tunewright.stages.stage import Role

TOLD = "frozen weights: kept in bfloat16, which holds all their digits"
IDS = torch.randint(64, (2, 9), generator=torch.Generator().manual_seed(1))
MIXED = torch.bfloat16


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def own_format() -> Iterator[None]:
    """accelerate keeps the number format of the first run of a process; runs seed its generators, too."""
    AcceleratorState._reset_state(reset_partial_state=True)
    with torch.random.fork_rng():
        yield
    AcceleratorState._reset_state(reset_partial_state=True)


def published(kind: str = "llama", **changes: Any) -> nn.Module:
    """A model whose float32 numbers are all bfloat16's, as most that are published."""
    model = lively(tiny(kind, **changes).float())
    for weight in model.parameters():
        weight.data = weight.data.to(MIXED).float()
    return model


def frozen(kind: str = "llama", **changes: Any) -> Any:
    return published(kind, **changes).requires_grad_(False)


def configured(*words: str) -> RunConfig:
    return read_config(["finetuning_type=lora", "bf16=true", *words]).config


def linears(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model.modules() if type(module) is nn.Linear]


def lines(told: tuple[str, ...]) -> list[str]:
    return [line for line in told if line.startswith("frozen weights")]


@pytest.mark.parametrize("kind", FAMILIES)
def test_loss_and_every_gradient_keep_every_bit(kind: str) -> None:
    """Of each family's step on rows of all kinds under autocast, as a run makes the model ready."""
    found = []
    for words in ([], ["slow_paths=weights"]):
        run, base = configured(*words), published(kind, **shape(kind))
        plain = sum(module.weight is not base.get_input_embeddings().weight for module in linears(base))  # type: ignore[operator]
        chosen = apply(run, base)  # type: ignore[arg-type]
        model = make_trainable(base, run)  # type: ignore[arg-type]
        lively_adapter(model)
        told = hasten(run, model)  # type: ignore[arg-type]
        share_beginnings(run, chosen, model)  # type: ignore[arg-type]
        assert lines(told) == ([] if words else [f"{TOLD} ({plain} modules)"])
        with torch.autocast("cpu", MIXED):
            loss = SupervisedFineTuning().loss({Role.POLICY: model}, collate_flat_shared(ROWS))
        loss.sum.backward()
        found.append({"loss": loss.sum.detach(), **gradients(model)})
    assert found[0].keys() == found[1].keys() and len(found[0]) > 1
    assert [name for name, one in found[0].items() if not torch.equal(one, found[1][name])] == []


def lively_adapter(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(4)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.05)


def test_without_mixed_precision_every_bit_is_there_too() -> None:
    """Predictions and proofs are made without; a weight is widened for its product, or all of them for as long as they are needed."""
    model = frozen()
    expected = model(input_ids=IDS).logits
    assert narrow(model, dtype=MIXED) == Taken(15, {})
    assert {layer.weight.dtype for layer in linears(model)} == {MIXED}
    assert torch.equal(model(input_ids=IDS).logits, expected)
    with widened(model):
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}
        assert torch.equal(model(input_ids=IDS).logits, expected)
    assert sum(weight.dtype == MIXED for weight in model.parameters()) == 15
    assert torch.equal(model(input_ids=IDS).logits, expected)


def test_a_weight_that_needs_float32_keeps_it() -> None:
    """One number of it is enough; so is one of a bias."""
    model = frozen("qwen2", attention_bias=True)
    for layer, name in ((model.model.layers[0].mlp.up_proj, "weight"), (model.model.layers[1].self_attn.q_proj, "bias")):
        getattr(layer, name).view(-1)[0] = 1 / 3
    assert narrow(model, dtype=MIXED) == Taken(13, {"numbers that need float32": 2})
    assert model.model.layers[0].mlp.up_proj.weight.dtype == model.model.layers[1].self_attn.q_proj.weight.dtype == torch.float32


@pytest.mark.parametrize("number", [float("nan"), 65520.0, 2.0**-30])
def test_float16_holds_less(number: float) -> None:
    """65504 is its largest number, 2^-24 its smallest; what is not a number is equal to nothing, and stays where it is seen."""
    model = frozen()
    model.model.layers[0].mlp.up_proj.weight[0, 0] = number
    taken = narrow(model, dtype=torch.float16)
    assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.float32 and taken.others["numbers that need float32"] >= 1


def test_what_trains_what_is_shared_and_what_is_read_otherwise_stays() -> None:
    """A head that is the embedding; the only weights of a full run; those below DoRA, whose norms are read."""
    assert narrow(frozen(tie_word_embeddings=True), dtype=MIXED).number == 14
    assert narrow(frozen(tie_word_embeddings=False), dtype=MIXED).number == 15
    run = read_config(["finetuning_type=full", "bf16=true"]).config
    assert lines(hasten(run, published())) == []  # type: ignore[arg-type]
    dora = make_trainable(published(), configured("use_dora=true", "lora_target=q_proj"))  # type: ignore[arg-type]
    assert narrow(dora, dtype=MIXED) == Taken(13, {})  # type: ignore[arg-type]
    assert all(module.base_layer.weight.dtype == torch.float32 for module in dora.modules() if hasattr(module, "lora_magnitude_vector"))


@pytest.mark.parametrize("words", [["stage=ppo"], ["stage=grpo"], ["finetuning_type=freeze"], ["bf16=false"]], ids=" ".join)
def test_runs_whose_weights_stay(words: list[str]) -> None:
    """Those that draw answers in float32, those that save all of the model, and those without mixed precision."""
    model = make_trainable(published(), configured(*words))  # type: ignore[arg-type]
    assert lines(hasten(configured(*words), model)) == []  # type: ignore[arg-type]
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


class _Reads(nn.Module):
    """A layer whose code multiplies by another's weight, in float32."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return linear(hidden.float(), self.inner.weight)


class _Asks(_Reads):
    """A layer that computes something else if the weight is narrow."""

    def forward(self, hidden: Tensor) -> Tensor:
        found: Tensor = self.inner(hidden)
        return found * (2 if self.inner.weight.dtype == MIXED else 1)


@pytest.mark.parametrize(("kind", "reason"), [
    (_Reads, "the model reads a weight without its layer"), (_Asks, "the model computes something else")])
def test_a_model_that_minds_keeps_float32(kind: type[_Reads], reason: str) -> None:
    model = frozen()
    model.model.layers[1].mlp.up_proj = kind(model.model.layers[1].mlp.up_proj)
    expected = model(input_ids=IDS).logits
    assert narrow(model, dtype=MIXED) == Taken(0, {reason: 15})
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert torch.equal(model(input_ids=IDS).logits, expected)


def test_no_copy_of_a_weight_waits_for_the_backward_pass() -> None:
    """Bytes of tensors that a step keeps, with wide weights and narrow ones: at least two for each number of the layers is saved."""
    kept = {}
    for words in ([], ["slow_paths=weights"]):
        run, base = configured(*words), published()
        model = make_trainable(base, run)  # type: ignore[arg-type]
        hasten(run, model)  # type: ignore[arg-type]
        storages: dict[int, int] = {}

        def note(tensor: Tensor, storages: dict[int, int] = storages) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), torch.autocast("cpu", MIXED):
            output = model(input_ids=IDS).logits
        own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        kept[bool(words)] = sum(size for place, size in storages.items() if place not in own)
        numbers = sum(module.base_layer.weight.numel() for module in model.modules() if hasattr(module, "base_layer"))
        del output
        gc.collect()
    assert kept[True] - kept[False] >= 2 * numbers > 0


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Its model in bfloat16, as it is published."""
    found = Workspace.make(tmp_path_factory.mktemp("narrow"))
    for file in (found.path / "model").glob("*.safetensors"):
        save_file({name: weight.to(MIXED) for name, weight in load_file(file).items()}, file, {"format": "pt"})
    config = found.path / "model" / "config.json"
    config.write_text(config.read_text().replace('"float32"', '"bfloat16"'))
    return found


RUNS: dict[str, dict[str, Any]] = {
    "sft, evaluated with answers": {"eval_steps": 3, "eval_strategy": "steps", "predict_with_generate": True, "max_new_tokens": 3,
                                    "do_predict": True, "max_steps": 3},
    "dpo": {"stage": "dpo", "dataset": "{path}/pairs.jsonl", "eval_dataset": None},
    "dpo of all weights, whose reference is frozen": {"stage": "dpo", "dataset": "{path}/pairs.jsonl", "finetuning_type": "full",
                                                      "eval_dataset": None, "ref_model": "{path}/model",
                                                      "precompute_ref_log_probs": False},
    "compiled": {"torch_compile_backend": "aot_eager", "max_steps": 3, "eval_dataset": None},
    "dropout, layers recomputed": {"lora_dropout": 0.2, "gradient_checkpointing": True},
}


@pytest.mark.slow
@pytest.mark.usefixtures("own_format")
@pytest.mark.parametrize("name", RUNS)
def test_runs_end_with_the_same_bits(workspace: Workspace, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, optimizer, every logged number and every answer of a run with and without."""
    common = {"eval_dataset": workspace.path / "held_out.jsonl", "bf16": True, **RUNS[name]}
    common = {key: value.format(path=workspace.path) if isinstance(value, str) else value for key, value in common.items()
              if value is not None}
    found, made = [], list[int]()
    plainly = frozen_weights.narrow
    monkeypatch.setattr(frozen_weights, "narrow", lambda *given, **how: made.append(plainly(*given, **how).number) or Taken(made[-1], {}))
    for slow in ("", "weights"):
        output_dir = tmp_path / (slow or "narrow")
        made.clear()
        trained(workspace, output_dir, **common, **({"slow_paths": slow} if slow else {}))
        assert made[:1] == ([] if slow else [14])
        answers = output_dir / "generated_predictions.jsonl"
        found.append((results(output_dir), answers.read_bytes() if answers.exists() else b"", weights(output_dir).keys()))
    assert found[0] == found[1]
    assert ("do_predict" in common) == bool(found[0][1])


def test_a_planner_counts_two_bytes(workspace: Workspace, tmp_path: Path) -> None:
    """For the numbers of frozen linear layers of a model whose configuration says bfloat16; not where the run makes them anew."""
    def layers(**changes: Any) -> set[torch.dtype]:
        settings = workspace.settings(tmp_path, **{"bf16": True, **changes})
        model = shape_model(read_config([f"{name}={value}" for name, value in settings.items()]).config).model
        return {module.base_layer.weight.dtype for module in model.modules() if hasattr(module, "base_layer")}

    assert layers() == {MIXED}
    assert layers(slow_paths="weights") == layers(pissa_init=True) == layers(bf16=False) == {torch.float32}


def test_only_this_module_narrows() -> None:
    """A model that was made ready once is made ready again to be evaluated: what is narrow stays so, and is counted no more."""
    model = frozen()
    hasten(configured(), model)
    assert lines(hasten(configured(), model)) == []
    assert frozen_weights._is_narrowed(model.model.layers[0].mlp.up_proj)

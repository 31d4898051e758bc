"""Planning with a few layers for all. Oracle: the same step with every layer there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.planning.shapes_of_runs import SHAPE, run_of, write
from tests.planning.test_step import MACHINE, ROWS
from tunewright.config.run import RunConfig
from tunewright.planning import shapes
from tunewright.planning.depth import shorten
from tunewright.planning.estimate import trained_weights
from tunewright.planning.recomputation import switched
from tunewright.planning.shapes import ShapeModel, shape_model
from tunewright.planning.step import BatchShape, Setting, Step, simulate

ON = {"gradient_checkpointing": True}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("models") / "deep", num_hidden_layers=7)


def step_of(shaped: ShapeModel, run: RunConfig, batch: BatchShape) -> Step:
    setting = Setting(torch.bfloat16 if run.precision.bf16 else None, 1000, 50_000, run.batching.gradient_accumulation_steps > 1, 0)
    with switched(shaped.model, run.precision, on=run.precision.gradient_checkpointing):
        return simulate(shaped, batch, setting, MACHINE)


@pytest.mark.parametrize("changes", [
    {}, ON, ON | {"recompute_modules": ("model.layers.{*}.mlp",)}, {"padding_free": False}, {"finetuning_type": "full"},
    {"finetuning_type": "full", "gradient_accumulation_steps": 2}, {"finetuning_type": "full"} | ON, {"quantization_bit": 4},
    {"slow_paths": ("loss", "lora", "mlp", "norm")}, {"use_reentrant_gc": True} | ON, {"bf16": True}])
def test_bytes_are_those_of_all_layers(directory: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte; seconds and operations to a ten-thousandth, because autocast narrows some weights once for all layers."""
    run = run_of(directory, **changes)
    batch = BatchShape(ROWS, run.batching.padding_free is not False)
    short = shape_model(run)
    monkeypatch.setattr(shapes, "shorten", lambda *_: None)
    whole = shape_model(run)
    assert short.depth is not None and short.depth.count == 7 and whole.depth is None
    found, expected = (step_of(shaped, run, batch) for shaped in (short, whole))
    assert (found.peak, found.kept, found.layers) == (expected.peak, expected.kept, 7)
    assert found.work.figures() == pytest.approx(expected.work.figures(), rel=1e-4)
    assert sorted(map(repr, trained_weights(run, short))) == sorted(map(repr, trained_weights(run, whole)))


@pytest.mark.parametrize("changes", [
    {"finetuning_type": "freeze"}, {"lora_target": ("model.layers.3.mlp.up_proj",)}, ON | {"recompute_modules": ("model.layers.{0-2}",)}])
def test_runs_that_tell_layers_apart_have_all_of_them(directory: Path, changes: dict[str, Any]) -> None:
    assert shape_model(run_of(directory, **changes)).depth is None


@pytest.mark.parametrize(("config", "changes"), [
    ("Gemma3TextConfig", {"num_hidden_layers": 6, "head_dim": 16}),
    ("Qwen3MoeConfig", {"num_hidden_layers": 5, "mlp_only_layers": [1], "num_experts": 4, "num_experts_per_tok": 2,
                        "moe_intermediate_size": 32, "head_dim": 16}),
    ("LlamaConfig", {"num_hidden_layers": 3})])
def test_models_of_unlike_or_few_layers_have_all_of_them(config: str, changes: dict[str, Any]) -> None:
    """Gemma 3 attends to a window in five layers of six; one layer in this mixture has no experts."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, config)(**SHAPE | changes))
    assert shorten(model, run_of(Path("m"))) is None

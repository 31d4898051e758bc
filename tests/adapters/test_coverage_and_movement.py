"""The coverage report and the no-op detector."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.models.tiny import FAMILIES, tiny_model
from tunewright.adapters.coverage import Coverage, Covered, coverage
from tunewright.adapters.footprint import moment_bytes
from tunewright.adapters.movement import Movement
from tunewright.adapters.trainable import make_trainable
from tunewright.config.run import RunConfig
from tunewright.config.tuning import FreezeConfig, LoraConfig, TuningConfig


def trainable(family: str = "llama", kind: str = "lora", **lora: Any) -> Any:
    return make_trainable(tiny_model(family), RunConfig(tuning=TuningConfig(finetuning_type=kind), lora=LoraConfig(**lora),
                                                       freeze=FreezeConfig(freeze_trainable_layers=1)))


@pytest.mark.effect("lora_target")
def test_report_of_a_lora_run() -> None:
    """By hand: rank 2 on q_proj (32 -> 32) is 2 * 64 numbers per layer, on v_proj (32 -> 16) 2 * 48; two layers.

    The base has 2 * 96 * 32 numbers outside the layers, 32 in the last norm and 7,744 in each layer.
    """
    report = coverage(trainable(lora_rank=2, lora_target=("q_proj", "v_proj"), additional_target=("norm",)))
    assert report.lines() == [
        "480 of 22,144 parameters train (2.17 %)",
        "  trains  self_attn.q_proj: 2 x, 256 parameters",
        "  trains  self_attn.v_proj: 2 x, 192 parameters",
        "  trains  model.norm: 1 x, 32 parameters",
        "  frozen  model.embed_tokens (3,072), mlp.gate_proj (3,072), mlp.up_proj (3,072), mlp.down_proj (3,072), lm_head (3,072), "
        "self_attn.o_proj (2,048) and 3 more kinds",
    ]
    assert report.kinds[0] == Covered("model.embed_tokens", 1, 3072, 0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["full", "freeze", "lora"])
def test_totals(family: str, kind: str) -> None:
    """Oracle: the counts over the parameters; at most twelve lines."""
    model = trainable(family, kind)
    report = coverage(model)
    assert report.total == sum(parameter.numel() for parameter in model.parameters())
    assert report.trainable == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert sum(covered.trainable for covered in report.kinds) == report.trainable
    assert sum(covered.parameters for covered in report.kinds) == sum(p.numel() for p in tiny_model(family).parameters())
    assert len(report.lines()) <= 12
    assert not any("lora" in line or "base_layer" in line for line in report.lines())


def test_many_kinds_fit_twelve_lines() -> None:
    kinds = (*(Covered(f"m{number}", 1, 10, 10) for number in range(30)), Covered("still", 1, 5, 0))
    lines = Coverage(kinds, 300, 305).lines()
    assert len(lines) == 12
    assert lines[10:] == ["  trains  21 more kinds: 210 parameters", "  frozen  still (5)"]


def step(model: Any, movement: Movement, rate: float = 1e-2, forget: str | None = None) -> None:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 96, (4, 9), generator=generator)
    model(input_ids=ids, labels=ids).loss.backward()
    movement.observe(rate)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and name != forget:
                parameter -= rate * parameter.grad
            parameter.grad = None


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lora", [{}, {"use_dora": True}, {"pissa_init": True}])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_healthy_run_raises_no_alarm(family: str, lora: dict[str, Any], steps: int) -> None:
    """B is zero at first, so A's first gradient is zero by construction: that is no alarm after one step or three."""
    model = trainable(family, **lora)
    movement = Movement(model)
    for _ in range(steps):
        step(model, movement)
    assert movement.stuck() == []


def test_a_warm_up_step_with_rate_zero_is_no_alarm() -> None:
    model = trainable(kind="full")
    movement = Movement(model)
    step(model, movement, rate=0.0)
    assert movement.stuck() == []


def test_tensors_that_do_not_take_part() -> None:
    """A module that the forward pass skips, one whose gradient is zero, and one that the optimizer does not know."""
    model = trainable(kind="full")
    model.spare = torch.nn.Parameter(torch.ones(3))
    model.model.norm.register_forward_hook(lambda module, _, out: out * 0)
    movement = Movement(model)
    assert "spare" in movement.names
    step(model, movement)
    stuck = movement.stuck()
    assert "spare: no gradient" in stuck
    assert "model.layers.0.mlp.up_proj.weight: gradient zero" in stuck
    healthy = trainable(kind="full")
    watched = Movement(healthy)
    step(healthy, watched, forget="model.norm.weight")
    assert watched.stuck() == ["model.norm.weight: did not change"]


def test_factors_that_stay_behind() -> None:
    """A never moves although B has long left zero; B never gets a gradient."""
    model = trainable(lora_target=("q_proj",))
    first = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    movement = Movement(model)
    for _ in range(3):
        step(model, movement, forget=first)
    assert movement.stuck() == [f"{first}: did not change"]


@pytest.mark.parametrize(("optim", "bytes_"), [
    ("adamw_torch", 8), ("paged_adamw_32bit", 8), ("paged_adamw_8bit", 2), ("lion_8bit", 1), ("lion_32bit", 4), ("ademamix", 12),
    ("rmsprop_bnb_8bit", 1), ("adafactor", 0), ("sgd", 0)])
def test_bytes_of_an_optimizers_state(optim: str, bytes_: int) -> None:
    """By hand: Adam keeps two moments, Lion and RMSProp one, AdEMAMix three; 8-bit ones a byte for each."""
    assert moment_bytes(optim) == bytes_

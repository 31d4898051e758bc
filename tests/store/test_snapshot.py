"""Optimizer, schedule, random numbers and position go to files and come back, every bit.

Oracle: the live objects themselves, compared as raw bytes, and the steps that they take afterwards.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tunewright.config.optimization import OptimizerConfig, ScheduleConfig
from tunewright.config.tuning import LoraConfig
from tunewright.engine import snapshot
from tunewright.engine.optimizers.build import build_optimizer
from tunewright.engine.schedules import ARGUMENTS, build_schedule
from tunewright.engine.state import TrainState
from tunewright.errors import InputError

TOTAL = 20
GIVEN: Mapping[str, Mapping[str, Any]] = {"cosine_with_min_lr": {"min_lr_rate": 0.1}, "polynomial": {"power": 2.0}}


class Adapted(nn.Module):
    """A weight, a norm, a bias, and factors named as LoRA's, so that every kind of parameter group has a member."""

    def __init__(self, width: int = 4, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.inner = nn.Linear(width, 3, dtype=dtype)
        self.norm = nn.LayerNorm(3, dtype=dtype)
        self.lora_A = nn.Linear(3, 2, bias=False, dtype=dtype)
        self.lora_B = nn.Linear(2, 3, bias=False, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.inner(x))
        return y + self.lora_B(self.lora_A(y))


def make(optim: str, dtype: torch.dtype = torch.float32, *, ratio: float | None = None, rate: float = 0.01,
         arguments: Mapping[str, Any] | None = None) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = Adapted(dtype=dtype)
    config = OptimizerConfig(optim=optim, learning_rate=rate, weight_decay=0.1, optim_args=arguments)
    return model, build_optimizer(model, config, LoraConfig(loraplus_lr_ratio=ratio))


def step(model: nn.Module, optimizer: Any, number: int) -> None:
    data = torch.randn(5, 4, generator=torch.Generator().manual_seed(number)).to(next(model.parameters()).dtype)
    optimizer.zero_grad()
    (model(data) ** 2).sum().backward()
    optimizer.step()


def bits(optimizer: Any) -> list[tuple[int, str, Any]]:
    """State of each parameter in order: dtype, shape and bytes of tensors, representation of numbers."""
    content = optimizer.state_dict()["state"]
    return [(index, key, (value.dtype, value.shape, raw(value)) if torch.is_tensor(value) else repr(value))
            for index in sorted(content) for key, value in sorted(content[index].items())]


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


OPTIMIZERS = [("adamw_torch", None), ("adamw_torch_fused", None), ("adamw_torch", {"amsgrad": True}), ("adafactor", None),
              ("adafactor", {"beta1": 0.9}), ("adafactor", {"scale_parameter": True})]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ratio", [None, 4.0])
@pytest.mark.parametrize(("optim", "arguments"), OPTIMIZERS)
def test_an_optimizer_goes_on_as_if_never_stopped(
    tmp_path: Path, optim: str, arguments: Mapping[str, Any] | None, ratio: float | None, dtype: torch.dtype
) -> None:
    model, optimizer = make(optim, dtype, ratio=ratio, arguments=arguments)
    for number in range(4):
        step(model, optimizer, number)
    snapshot.write_optimizer(optimizer, model, tmp_path)
    again, restored = make(optim, dtype, ratio=ratio, arguments=arguments)
    again.load_state_dict(model.state_dict())
    snapshot.read_optimizer(restored, again, tmp_path)
    assert bits(restored) == bits(optimizer)
    assert restored.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
    for number in range(4, 8):
        step(model, optimizer, number)
        step(again, restored, number)
    assert bits(restored) == bits(optimizer)
    assert all(raw(one) == raw(other) for one, other in zip(model.parameters(), again.parameters(), strict=True))


ODD = (math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.4e-45, 2.0**-149, 1e-40, 3.4028234663852886e38)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_odd_numbers_keep_their_bits(tmp_path: Path, dtype: torch.dtype) -> None:
    """NaN with a payload, infinities, minus zero and subnormal numbers, in tensors and in groups."""
    model, optimizer = make("adamw_torch", dtype)
    step(model, optimizer, 0)
    odd = torch.tensor(ODD, dtype=torch.float64).to(dtype)
    for entries in optimizer.state.values():
        for key in ("exp_avg", "exp_avg_sq"):
            flat = entries[key].view(-1)
            flat[:] = odd[torch.arange(len(flat)) % len(odd)]
    payload = torch.tensor([0x7FC0_0001, -0x003F_FFFF], dtype=torch.int32).view(torch.float32)
    first = next(iter(optimizer.state.values()))
    if dtype == torch.float32:
        first["exp_avg"].view(-1)[:2] = payload
    snapshot.write_optimizer(optimizer, model, tmp_path)
    again, restored = make("adamw_torch", dtype)
    snapshot.read_optimizer(restored, again, tmp_path)
    assert bits(restored) == bits(optimizer)


def test_a_state_before_the_first_step_and_parameters_without_one(tmp_path: Path) -> None:
    """An empty state; and one in which a parameter never had a gradient."""
    model, optimizer = make("adamw_torch")
    snapshot.write_optimizer(optimizer, model, tmp_path)
    again, restored = make("adamw_torch")
    snapshot.read_optimizer(restored, again, tmp_path)
    assert bits(restored) == []
    model.lora_A.weight.requires_grad_(False)
    step(model, optimizer, 0)
    snapshot.write_optimizer(optimizer, model, tmp_path)
    snapshot.read_optimizer(restored, again, tmp_path)
    assert bits(restored) == bits(optimizer) != []


def test_another_order_of_parameters_does_no_harm(tmp_path: Path) -> None:
    """Written from groups of LoRA+, read into those without: each tensor finds its parameter by name."""
    model, optimizer = make("adamw_torch", ratio=4.0)
    step(model, optimizer, 0)
    snapshot.write_optimizer(optimizer, model, tmp_path)
    again, restored = make("adamw_torch")
    snapshot.read_optimizer(restored, again, tmp_path)
    for (name, one), (_, other) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert raw(optimizer.state[one]["exp_avg"]) == raw(restored.state[other]["exp_avg"]), name


def other_name(model: Any) -> None:
    model.lora_C = model.lora_B
    del model.lora_B


def one_less(model: Any) -> None:
    model.norm.bias.requires_grad_(False)


def wider(model: Any) -> None:
    model.inner = nn.Linear(9, 3)


@pytest.mark.parametrize(("change", "says"), [
    (other_name, "lora_B.weight (3 x 2 -> absent), lora_C.weight (absent -> 3 x 2); 2 in all"),
    (one_less, "norm.bias (3 -> absent); 1 in all"), (wider, "inner.weight (3 x 4 -> 3 x 9); 1 in all")])
def test_other_parameters_are_refused_by_name(tmp_path: Path, change: Callable[[Any], None], says: str) -> None:
    model, optimizer = make("adamw_torch")
    step(model, optimizer, 0)
    snapshot.write_optimizer(optimizer, model, tmp_path)
    other = Adapted()
    change(other)
    restored = build_optimizer(other, OptimizerConfig(optim="adamw_torch"), LoraConfig())
    with pytest.raises(InputError) as caught:
        snapshot.read_optimizer(restored, other, tmp_path)
    assert caught.value.line() == (
        f"{tmp_path}: the checkpoint's optimizer has other parameters: {says}; resume with the tuning it was made with")


def test_another_optimizer_is_refused(tmp_path: Path) -> None:
    model, optimizer = make("adamw_torch")
    step(model, optimizer, 0)
    snapshot.write_optimizer(optimizer, model, tmp_path)
    again, restored = make("adafactor")
    with pytest.raises(InputError, match="the checkpoint's optimizer is AdamW, this run's is Adafactor"):
        snapshot.read_optimizer(restored, again, tmp_path)
    fused, plain = make("adamw_torch_fused")
    snapshot.read_optimizer(plain, fused, tmp_path)  # the same mathematics and the same state
    assert bits(plain) == bits(optimizer)


def moved(schedule: Any, optimizer: Any, steps: int) -> list[list[float]]:
    """The rates of every group at each of the next `steps` steps."""
    rates = []
    for _ in range(steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        assert schedule.get_last_lr() == rates[-1]
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_schedule_goes_on(tmp_path: Path, name: str, warmup: int) -> None:
    """Stopped at each step: the rates that follow are those of the schedule that was not stopped, bit for bit."""
    config = ScheduleConfig(lr_scheduler_type=name, warmup_steps=warmup, lr_scheduler_kwargs=dict(GIVEN.get(name, {})) or None)
    _, whole = make("adamw_torch", ratio=4.0)
    expected = moved(build_schedule(whole, config, TOTAL), whole, TOTAL)
    assert len({len(rates) for rates in expected}) == 1 and len(expected[0]) == 3
    for stop in (0, 1, 3, 10, 19):
        model, optimizer = make("adamw_torch", ratio=4.0)
        schedule = build_schedule(optimizer, config, TOTAL)
        moved(schedule, optimizer, stop)
        snapshot.write_optimizer(optimizer, model, tmp_path)
        snapshot.write_schedule(schedule, tmp_path)
        again, restored = make("adamw_torch", ratio=4.0)
        continued = build_schedule(restored, config, TOTAL)
        snapshot.read_optimizer(restored, again, tmp_path)
        snapshot.read_schedule(continued, tmp_path)
        assert moved(continued, restored, TOTAL - stop) == expected[stop:]


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_changed_rate_is_the_new_runs(tmp_path: Path, name: str) -> None:
    """Resumed at step 7 with another rate and decay: from there the rates are those of a run that had it all along."""
    config = ScheduleConfig(lr_scheduler_type=name, warmup_steps=2, lr_scheduler_kwargs=dict(GIVEN.get(name, {})) or None)
    _, whole = make("adamw_torch", rate=0.003)
    expected = moved(build_schedule(whole, config, TOTAL), whole, TOTAL)
    model, optimizer = make("adamw_torch", rate=0.01)
    schedule = build_schedule(optimizer, config, TOTAL)
    moved(schedule, optimizer, 7)
    snapshot.write_optimizer(optimizer, model, tmp_path)
    snapshot.write_schedule(schedule, tmp_path)
    again = Adapted()
    restored = build_optimizer(
        again, OptimizerConfig(optim="adamw_torch", learning_rate=0.003, weight_decay=0.5, adam_beta2=0.9), LoraConfig())
    continued = build_schedule(restored, config, TOTAL)
    snapshot.read_optimizer(restored, again, tmp_path)
    snapshot.read_schedule(continued, tmp_path)
    assert moved(continued, restored, TOTAL - 7) == expected[7:]
    assert [group["weight_decay"] for group in restored.param_groups] == [0.5, 0.0]
    assert {group["betas"] for group in restored.param_groups} == {(0.9, 0.9)}


def draw() -> list[Any]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), float(np.random.standard_normal()), float(torch.rand(())),
            float(torch.randn(()))]


@pytest.mark.parametrize("drawn", [0, 1, 2, 700])
def test_random_numbers_go_on(tmp_path: Path, drawn: int) -> None:
    """Python, NumPy and torch, with the second half of a normal pair kept back or not (an odd count of draws)."""
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    for _ in range(drawn):
        draw()
    snapshot.write_random(0, tmp_path)
    expected = [draw() for _ in range(700)]
    random.seed(2), np.random.seed(2), torch.manual_seed(2)
    snapshot.read_random(0, tmp_path)
    assert [draw() for _ in range(700)] == expected


def test_the_ranks_have_numbers_of_their_own(tmp_path: Path) -> None:
    for rank in (0, 1):
        torch.manual_seed(rank)
        snapshot.write_random(rank, tmp_path)
    drawn = []
    for rank in (0, 1):
        snapshot.read_random(rank, tmp_path)
        drawn.append(float(torch.rand(())))
    assert drawn[0] != drawn[1]


def test_the_position_comes_back(tmp_path: Path) -> None:
    state = TrainState(
        global_step=7, epoch=1, offset=4, samples_seen=26, tokens_seen=900, loss_sum=0.1 + 0.2, loss_count=3.0, total_loss_sum=1e-310,
        total_loss_count=7.0, best_metric=-0.0, best_step=6, evaluations_without_gain=2, elapsed_s=1.5,
        log_history=[{"loss": 1 / 3, "grad_norm": math.inf, "step": 2}])
    snapshot.write_state(state, 12, 1.2, tmp_path)
    back = snapshot.read_state(tmp_path)
    assert back == state and repr(back) == repr(state)
    peer = json.loads((tmp_path / "trainer_state.json").read_text())
    assert (peer["global_step"], peer["max_steps"], peer["epoch"], peer["best_model_checkpoint"]) == (7, 12, 1.2, "checkpoint-6")


@pytest.mark.parametrize("text", ["{}", '{"global_step": 1}', "[]", "7", "null", '{"unknown": 1}', "{"])
def test_a_position_with_other_fields_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError):
        TrainState.from_json(text)


def test_loss_scale_round_trip(tmp_path: Path) -> None:
    """Oracle: torch's own state of a scaler that has just halved its scale after an infinite gradient."""
    def scaler() -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=7)

    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    used = scaler()
    used.scale(weight.sum() * float("inf")).backward()
    used.step(optimizer)
    used.update()
    snapshot.write_loss_scale(used, tmp_path)
    fresh = scaler()
    snapshot.read_loss_scale(fresh, tmp_path)
    assert used.get_scale() == 512.0
    assert fresh.state_dict() == used.state_dict()
    snapshot.write_loss_scale(None, tmp_path / "nowhere")

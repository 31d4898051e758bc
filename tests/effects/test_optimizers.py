"""Changing a parameter of optimizer or schedule changes a weight, a state, a rate or what is open to gradients.

Through the public path: words as on the command line, read as a configuration, to the optimizer that a run gets. Expected numbers are
worked by hand, or are those of torch's own optimizers.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.engine_parts.test_optimizers_resume import tiny_model
from tunewright.commands.train import train
from tunewright.config.run import RunConfig
from tunewright.dialects.read import read_config
from tunewright.engine.optimizers.build import build_optimizer
from tunewright.engine.schedules import build_schedule
from tunewright.selftest.workspace import LAST, Workspace


def run(*words: str) -> RunConfig:
    return read_config(list(words)).config


def optimizer(model: nn.Module, *words: str) -> Any:
    config = run("finetuning_type=full", *words)
    return build_optimizer(model, config.optimizer, config.lora, config.run.seed)


def walked(*words: str, gradients: tuple[float, ...] = (2.0,), start: float = 1.0) -> float:
    """A single weight after a step for each gradient."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, start)
    chosen = optimizer(layer, *words)
    for gradient in gradients:
        layer.weight.grad = torch.full((1, 1), gradient)
        chosen.step()
    return float(layer.weight.detach())


@pytest.mark.effect("optim", "learning_rate", "weight_decay")
def test_rate_and_decay() -> None:
    """By hand. SGD: 1 - rate (2 + decay 1). AdamW on its first step goes one rate, whatever the gradient, after decay."""
    assert walked("optim=sgd", "learning_rate=0.1") == pytest.approx(0.8)
    assert walked("optim=sgd", "learning_rate=0.2") == pytest.approx(0.6)
    assert walked("optim=sgd", "learning_rate=0.1", "weight_decay=0.5") == pytest.approx(0.75)
    assert walked("learning_rate=0.1") == pytest.approx(0.9)
    assert walked("learning_rate=0.1", "weight_decay=0.5") == pytest.approx(0.95 - 0.1)


@pytest.mark.effect("optim_args")
def test_further_arguments() -> None:
    """Heavy-ball momentum 0.5, gradients 2 and 2: 1 - 0.1 (2 + 3); said as pairs, JSON and a Python literal."""
    for spelling in ("momentum=0.5", '{"momentum": 0.5}', "{'momentum': 0.5}"):
        assert walked("optim=sgd", "learning_rate=0.1", f"optim_args={spelling}", gradients=(2.0, 2.0)) == pytest.approx(0.5)


@pytest.mark.effect("adam_beta1", "adam_beta2", "adam_epsilon")
def test_adam_parameters() -> None:
    """By hand, two steps of gradients 1 and 3 at rate 0.1. m^ = (b1 (1 - b1) + 3 (1 - b1)) / (1 - b1^2), v^ likewise with 1 and 9."""
    def expected(beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> float:
        first = (beta1 + 3) * (1 - beta1) / (1 - beta1**2)
        second = (beta2 + 9) * (1 - beta2) / (1 - beta2**2)
        return 1 - 0.1 / (1 + epsilon) - 0.1 * first / (second**0.5 + epsilon)

    seen = [walked("learning_rate=0.1", *words, gradients=(1.0, 3.0)) for words in (
        (), ("adam_beta1=0.5",), ("adam_beta2=0.5",), ("adam_epsilon=0.5",))]
    assert seen == pytest.approx([expected(), expected(beta1=0.5), expected(beta2=0.5), expected(epsilon=0.5)])


@pytest.mark.effect("optim")
def test_each_dialects_default() -> None:
    """What the documents say: paged AdamW in 8 bits, in 32 bits, torch's AdamW; and names that have gone are taken to what they are."""
    found = {}
    for dialect in ("qlora_script", "sft_json", "llamafactory", "mindspeed_fsdp2"):
        config = read_config(["--dialect", dialect]).config
        found[dialect] = config.optimizer.optim
        kind = type(build_optimizer(nn.Linear(2, 2), config.optimizer, config.lora))
        assert kind.__module__.startswith("bitsandbytes") == config.optimizer.optim.startswith("paged")
    assert found == {"qlora_script": "paged_adamw_8bit", "sft_json": "paged_adamw_32bit", "llamafactory": "adamw_torch",
                     "mindspeed_fsdp2": "adamw_torch"}
    assert read_config(["--dialect", "llamafactory", "--optim", "adamw_hf"]).config.optimizer.optim == "adamw_torch"


def rates(*words: str, steps: int = 4) -> list[float]:
    config = run("learning_rate=1.0", *words)
    chosen = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=config.optimizer.learning_rate)
    schedule = build_schedule(chosen, config.schedule, steps)
    found = []
    for _ in range(steps + 1):
        found.append(schedule.get_last_lr()[0])
        chosen.step()
        schedule.step()
    return found


@pytest.mark.effect("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio")
def test_shape_of_the_rate() -> None:
    """By hand."""
    assert rates("lr_scheduler_type=linear") == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert rates("lr_scheduler_type=cosine") == pytest.approx([1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0])
    assert rates("lr_scheduler_type=cosine", "lr_scheduler_kwargs={'num_cycles': 1}") == pytest.approx([1, 0.5, 0, 0.5, 1])
    assert rates("lr_scheduler_type=linear", "warmup_steps=2") == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert rates("lr_scheduler_type=linear", "warmup_ratio=0.5") == pytest.approx([0, 0.5, 1, 0.5, 0])


@pytest.mark.effect("min_lr")
def test_min_lr_is_where_the_cosine_ends(tmp_path: Path) -> None:
    """By hand: half-way between 1 and 0.2 at half time, 0.2 at the end; the mindspeed document's own default is 1e-6."""
    assert rates("lr_scheduler_type=cosine", "min_lr=0.2", steps=2) == pytest.approx([1, 0.6, 0.2])
    file = tmp_path / "c.yaml"
    file.write_text("dialect: mindspeed_fsdp2\ntraining:\n  lr: 1.0e-5\n")
    config = read_config([str(file)]).config
    schedule = build_schedule(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-5), config.schedule, 50)
    for _ in range(50):
        schedule.optimizer.step(), schedule.step()
    assert (config.schedule.min_lr, schedule.get_last_lr()) == (1e-6, [pytest.approx(1e-6)])


def state_of(chosen: Any, model: nn.Module, name: str) -> dict[str, Any]:
    """The optimizer's state of one weight after one step on gradients of a fixed seed."""
    chance = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        drawn = torch.randn(weight.shape, generator=chance)
        weight.grad = drawn if weight.requires_grad else None
    chosen.step()
    found: dict[str, Any] = chosen.state[dict(model.named_parameters())[name]]
    return found


UP, Q = "model.layers.0.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.effect("use_galore", "galore_rank", "galore_proj_type", "galore_target")
def test_galore_shrinks_the_state_of_what_it_projects() -> None:
    """up_proj is 80 x 64: the shorter side is projected by std, the longer by reverse_std, both by full."""
    def shapes(*words: str, name: str = UP) -> tuple[tuple[int, ...], set[str]]:
        model = tiny_model()
        state = state_of(optimizer(model, *words), model, name)
        return tuple(state["exp_avg"].shape), set(state) & {"left", "right"}

    assert shapes() == ((80, 64), set())
    assert shapes("use_galore=true") == ((80, 16), {"right"})
    assert shapes("use_galore=true", "galore_rank=3") == ((80, 3), {"right"})
    assert shapes("use_galore=true", "galore_proj_type=reverse_std") == ((16, 64), {"left"})
    assert shapes("use_galore=true", "galore_proj_type=full") == ((16, 16), {"left", "right"})
    assert shapes("use_galore=true", "galore_target=q_proj") == ((80, 64), set())
    assert shapes("use_galore=true", "galore_target=q_proj", name=Q) == ((64, 16), {"right"})
    assert shapes("--dialect", "llamafactory", "use_galore=true", "--optim_target_modules", "q_proj") == ((80, 64), set())


@pytest.mark.effect("galore_scale", "galore_update_interval")
def test_galore_scale_and_interval() -> None:
    """A step of scale 0.5 is half of one of scale 1; with interval 1 the second step has a new basis, with 2 the old one."""
    moved, bases = {}, {}
    for scale in ("0.5", "1"):
        model = tiny_model()
        before = dict(model.named_parameters())[UP].detach().clone()
        state_of(optimizer(model, "use_galore=true", f"galore_scale={scale}"), model, UP)
        moved[scale] = dict(model.named_parameters())[UP].detach() - before
    torch.testing.assert_close(moved["0.5"], moved["1"] / 2, rtol=1e-3, atol=1e-7)
    for interval in ("1", "2"):
        model = tiny_model()
        chosen = optimizer(model, "use_galore=true", f"galore_update_interval={interval}")
        first = state_of(chosen, model, UP)["right"].clone()
        dict(model.named_parameters())[UP].grad.mul_(torch.linspace(1, 9, 64))  # type: ignore[union-attr]
        chosen.step()
        bases[interval] = torch.equal(first, chosen.state[dict(model.named_parameters())[UP]]["right"])
    assert bases == {"1": False, "2": True}


def opened(*words: str, steps: int = 0) -> set[str]:
    """The decoder layers open to gradients after that many steps; `-` for weights outside them."""
    model = tiny_model()
    chosen = optimizer(model, *words)
    for _ in range(steps):
        for weight in model.parameters():
            weight.grad = torch.ones_like(weight) if weight.requires_grad else None
        chosen.step()
    return {name.split(".")[2] if ".layers." in name else "-" for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.effect("use_badam", "badam_switch_mode", "badam_start_block", "badam_switch_interval", "badam_mode")
def test_badam_opens_one_layer_at_a_time() -> None:
    """Of two layers. Ratio mode needs all gradients."""
    assert opened() == {"0", "1", "-"}
    assert (opened("use_badam=true"), opened("use_badam=true", "badam_switch_mode=descending")) == ({"0"}, {"1"})
    assert opened("use_badam=true", "badam_start_block=1") == {"1"}
    assert (opened("use_badam=true", steps=2), opened("use_badam=true", "badam_switch_interval=2", steps=2)) == ({"0"}, {"1"})
    assert opened("use_badam=true", "badam_switch_interval=1", "badam_switch_mode=fixed", steps=1) == {"0"}
    assert opened("use_badam=true", "badam_mode=ratio") == {"0", "1", "-"}


@pytest.mark.effect("badam_update_ratio", "badam_mask_mode")
def test_badam_ratio_moves_a_share() -> None:
    """Of 80 x 64 = 5,120 numbers a twentieth is 256, a quarter 1,280; side by side they make one run round the end, scattered many."""
    def moved(*words: str) -> list[bool]:
        model = tiny_model()
        weight = dict(model.named_parameters())[UP]
        before = weight.detach().clone()
        state_of(optimizer(model, "use_badam=true", "badam_mode=ratio", *words), model, UP)
        found: list[bool] = (weight.detach() != before).flatten().tolist()
        return found

    def borders(flags: list[bool]) -> int:
        return sum(one != other for one, other in zip(flags, [*flags[1:], flags[0]], strict=True))

    assert (sum(moved()), sum(moved("badam_update_ratio=0.25"))) == (256, 1280)
    assert borders(moved()) == 2 < 100 < borders(moved("badam_mask_mode=scatter"))


@pytest.mark.effect("badam_verbose")
def test_badam_tells(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        opened("use_badam=true")
        assert "BAdam trains layer" not in caplog.text
        opened("use_badam=true", "badam_verbose=1")
        assert "BAdam trains layer 0 from step 1 on" in caplog.text and UP not in caplog.text
        opened("use_badam=true", "badam_verbose=2")
        assert UP in caplog.text


@pytest.mark.effect("use_adam_mini")
def test_adam_mini_has_one_second_moment_per_row() -> None:
    model = tiny_model()
    assert tuple(state_of(optimizer(model), model, UP)["exp_avg_sq"].shape) == (80, 64)
    assert tuple(state_of(optimizer(model, "use_adam_mini=true"), model, UP)["exp_avg_sq"].shape) == (80, 1)


def test_galore_layerwise_is_refused() -> None:
    """At its inert value it is read, otherwise refused with the reason."""
    from tunewright.errors import ConfigError

    read_config(["--dialect", "llamafactory", "galore_layerwise=false"])
    with pytest.raises(ConfigError, match="weights would change during the backward pass"):
        read_config(["--dialect", "llamafactory", "galore_layerwise=true"])


@pytest.mark.effect("loraplus_lr_ratio", "loraplus_lr_embedding")
@pytest.mark.parametrize("optim", ["adamw_torch_fused", "paged_adamw_8bit", "lion_32bit", "lamb"])
def test_loraplus_rates(optim: str) -> None:
    """LoRA+ (Hayou et al. 2024): A at the base rate, adapters of embeddings at their own, B at the ratio times the base rate."""
    from peft import LoraConfig, get_peft_model

    def rates_of(*words: str) -> list[float]:
        model = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"]))  # type: ignore[arg-type]
        config = run("learning_rate=0.001", f"optim={optim}", *words)
        return [group["lr"] for group in build_optimizer(model, config.optimizer, config.lora).param_groups]

    assert rates_of() == [0.001]
    assert rates_of("loraplus_lr_ratio=8") == [0.001, 1e-6, 0.008]
    assert rates_of("loraplus_lr_ratio=8", "loraplus_lr_embedding=0.002") == [0.001, 0.002, 0.008]


def trained(workspace: Workspace, output_dir: Path, **changes: Any) -> dict[str, float]:
    settings = workspace.settings(output_dir, **changes)
    return train(read_config([f"{name}={value}" for name, value in settings.items()], purpose="train").resolve().config)


@pytest.mark.effect("max_grad_norm")
@pytest.mark.usefixtures("quiet_random")
def test_the_gradient_is_clipped(workspace: Workspace, tmp_path: Path) -> None:
    """One step of SGD with a bound of 0.01 moves the weights by rate x 0.01 in all."""
    from safetensors.torch import load_file

    before = load_file(workspace.path / "model" / "model.safetensors")
    trained(workspace, tmp_path, finetuning_type="full", optim="sgd", max_steps=1, max_grad_norm=0.01, learning_rate=1,
            lr_scheduler_type="constant")
    after = load_file(tmp_path / "model.safetensors")
    assert sum(float((after[name] - before[name]).square().sum()) for name in before) ** 0.5 == pytest.approx(0.01, rel=1e-3)


RUNS: dict[str, dict[str, Any]] = {
    "paged_adamw_8bit": {"optim": "paged_adamw_8bit"},
    "lion": {"optim": "lion_32bit", "learning_rate": 0.001},
    "galore": {"use_galore": True, "finetuning_type": "full", "galore_rank": 4, "galore_update_interval": 4},
    "badam layer": {"use_badam": True, "finetuning_type": "full", "badam_switch_interval": 2, "badam_switch_mode": "random"},
    "badam ratio": {"use_badam": True, "finetuning_type": "full", "badam_mode": "ratio", "badam_switch_interval": 4},
    "adam-mini": {"use_adam_mini": True, "finetuning_type": "full"},
}


@pytest.mark.slow
@pytest.mark.usefixtures("quiet_random")
@pytest.mark.parametrize("name", RUNS)
def test_a_whole_run_learns_and_resumes_exactly(name: str, workspace: Workspace, tmp_path: Path) -> None:
    """22 rows, two epochs, accumulation over two batches, six steps: the loss falls, and going on from the checkpoint of step 3
    leaves the same weights, optimizer, schedule and random numbers, byte for byte."""
    settings = {"save_total_limit": 9, "save_steps": 3, "gradient_accumulation_steps": 2, "logging_steps": 1,
                "lr_scheduler_type": "constant", **RUNS[name]}
    trained(workspace, tmp_path, **settings)
    losses = [entry["loss"] for entry in json.loads((tmp_path / "trainer_state.json").read_text())["log_history"] if "loss" in entry]
    last = tmp_path / "checkpoint-6"
    expected = {file: (last / file).read_bytes() for file in LAST if (last / file).is_file()}
    assert len(losses) == 6 and losses[-1] < losses[0] and len(expected) == 5
    shutil.rmtree(last)
    trained(workspace, tmp_path, **settings)
    assert {file: (last / file).read_bytes() for file in expected} == expected

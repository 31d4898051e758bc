"""Every optimizer, interrupted after four steps of two micro-batches each: the next four are those of the run that went on.

Oracle: the uninterrupted run itself, weights and state compared byte by byte.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tunewright.config.optimization import OptimizerConfig, ScheduleConfig
from tunewright.config.optimizer_names import BITSANDBYTES
from tunewright.config.tuning import LoraConfig
from tunewright.engine import snapshot
from tunewright.engine.optimizers.build import METHODS, OPTIMIZERS, build_optimizer
from tunewright.engine.schedules import build_schedule
from tunewright.errors import InputError

METHOD_SETTINGS: dict[str, dict[str, Any]] = {
    "galore": {"use_galore": True, "galore_rank": 3, "galore_update_interval": 3},
    "badam layer": {"use_badam": True, "badam_switch_interval": 3, "badam_switch_mode": "random"},
    "badam ratio": {"use_badam": True, "badam_mode": "ratio", "badam_switch_interval": 3, "badam_update_ratio": 0.25,
                    "badam_mask_mode": "scatter"},
    "adam-mini": {"use_adam_mini": True},
}
CASES: dict[str, dict[str, Any]] = {
    **{name: {"optim": name} for name in OPTIMIZERS.names()},
    "sgd with momentum": {"optim": "sgd", "optim_args": {"momentum": 0.9, "nesterov": True}},
    "rmsprop, centred": {"optim": "rmsprop", "optim_args": {"momentum": 0.9, "centered": True}},
    **METHOD_SETTINGS,
}


def tiny_model(dtype: torch.dtype = torch.float32) -> nn.Module:
    """Two layers whose MLP matrices have 64 x 80 = 5,120 numbers: above the 4,096 from which 8-bit state is used."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    model: nn.Module = Qwen2ForCausalLM(Qwen2Config(
        vocab_size=40, hidden_size=64, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        tie_word_embeddings=False)).to(dtype)
    return model


def build(model: nn.Module, **settings: Any) -> tuple[Any, Any]:
    config = OptimizerConfig(**{"learning_rate": 0.01, "weight_decay": 0.1, **settings})
    optimizer = build_optimizer(model, config, LoraConfig(), seed=7)
    return optimizer, build_schedule(optimizer, ScheduleConfig(), 10)


def train(model: nn.Module, optimizer: Any, schedule: Any, steps: range) -> None:
    """Steps of two micro-batches each, the rows a function of the step."""
    for step in steps:
        for part in (0, 1):
            ids = torch.randint(0, 40, (2, 6), generator=torch.Generator().manual_seed(2 * step + part))
            (model(input_ids=ids, labels=ids).loss / 2).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def everything(model: nn.Module, optimizer: Any) -> dict[str, Any]:
    """Weights, which of them are open to gradients, and the whole state, by name and in bytes."""
    names = {id(weight): name for name, weight in model.named_parameters()}
    found: dict[str, Any] = {name: (raw(weight), weight.requires_grad) for name, weight in model.named_parameters()}
    for owner, entries in optimizer.state.items():
        for key, value in entries.items():
            place = f"{owner if isinstance(owner, str) else names[id(owner)]}|{key}"
            found[place] = (value.dtype, tuple(value.shape), raw(value)) if torch.is_tensor(value) else value
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", CASES)
def test_resumed_equals_uninterrupted(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """4 + 4 steps against 8, through safetensors and JSON."""
    model = tiny_model(dtype)
    optimizer, schedule = build(model, **CASES[name])
    train(model, optimizer, schedule, range(4))
    snapshot.write_optimizer(optimizer, model, tmp_path)
    snapshot.write_schedule(schedule, tmp_path)
    again = tiny_model(dtype)
    again.load_state_dict(model.state_dict())
    restored, continued = build(again, **CASES[name])
    snapshot.read_optimizer(restored, again, tmp_path)
    snapshot.read_schedule(continued, tmp_path)
    assert everything(again, restored) == everything(model, optimizer)
    train(model, optimizer, schedule, range(4, 8))
    train(again, restored, continued, range(4, 8))
    assert everything(again, restored) == everything(model, optimizer)
    assert {path.name for path in tmp_path.iterdir()} == {"optimizer.safetensors", "optimizer.json", "scheduler.json"}


def test_every_optimizer_and_method_has_a_case() -> None:
    assert set(CASES) >= {*OPTIMIZERS.names(), *METHODS.names()}


@pytest.mark.parametrize("name", BITSANDBYTES)
def test_paged_is_plain_on_a_cpu_and_only_large_weights_are_in_8_bits(name: str) -> None:
    """A paged optimizer takes the same steps as its like without pages, bit for bit; state of 5,120 numbers is uint8, of 64 float32."""
    model = tiny_model()
    optimizer, schedule = build(model, optim=name)
    train(model, optimizer, schedule, range(2))
    layer = model.model.layers[0]  # type: ignore[union-attr, index]
    wanted = torch.uint8 if name.endswith("8bit") else torch.float32
    assert optimizer.state[layer.mlp.up_proj.weight]["state1"].dtype == wanted
    assert optimizer.state[layer.input_layernorm.weight]["state1"].dtype == torch.float32
    if name.startswith("paged_"):
        like = {"paged_adamw_32bit": "adamw_32bit", "paged_ademamix_32bit": "ademamix"}.get(name, name.removeprefix("paged_"))
        other = tiny_model()
        plain, its = build(other, optim=like) if like in BITSANDBYTES else plain_adamw(other)
        train(other, plain, its, range(2))
        assert everything(other, plain) == everything(model, optimizer)


def plain_adamw(model: nn.Module) -> tuple[Any, Any]:
    """bitsandbytes' AdamW in 32 bits without pages, for which we have no name: torch's own is the same and needs no package."""
    import bitsandbytes

    from tunewright.engine.optimizers.groups import Rates, parameter_groups

    optimizer = bitsandbytes.optim.AdamW(parameter_groups(model, Rates(0.01, 0.1)), lr=0.01, weight_decay=0.1)
    return optimizer, build_schedule(optimizer, ScheduleConfig(), 10)


def test_paged_ademamix_takes_large_weights_on_a_cpu() -> None:
    """From 100,000 numbers on bitsandbytes would ask for pages, which it has no code for without a GPU."""
    layer = nn.Linear(400, 400, bias=False)
    optimizer, _ = build(layer, optim="paged_ademamix_8bit")
    layer.weight.grad = torch.ones(400, 400)
    before = layer.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(before, layer.weight)


@pytest.mark.parametrize(("made", "now", "says"), [
    ("galore", "adam-mini", "Galore, this run's is AdamMini"),
    ("adamw_torch", "badam layer", "AdamW, this run's is AdamW with badam"),
    ("paged_adamw_8bit", "adamw_torch", "bitsandbytes AdamW, this run's is AdamW"),
])
def test_state_of_another_method_is_refused(made: str, now: str, says: str, tmp_path: Path) -> None:
    """Classes of one name in two libraries, and one with something added, are told apart."""
    model = tiny_model()
    snapshot.write_optimizer(build(model, **CASES[made])[0], model, tmp_path)
    again = tiny_model()
    other, _ = build(again, **CASES[now])
    with pytest.raises(InputError) as caught:
        snapshot.read_optimizer(other, again, tmp_path)
    assert f"the checkpoint's optimizer is {says}" in caught.value.line()

"""Optimizers and their groups. Oracles: transformers' and peft's own groupings, torch's documented update rule by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from tunewright.config.optimization import OptimizerConfig
from tunewright.config.tuning import LoraConfig
from tunewright.engine.optimizers.arguments import ARGUMENTS, check_arguments
from tunewright.engine.optimizers.build import OPTIMIZERS, build_optimizer
from tunewright.engine.optimizers.groups import Rates, parameter_groups, undecayed
from tunewright.errors import InputError


def tiny_model() -> nn.Module:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=False))


def lora_model(**settings: Any) -> nn.Module:
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model

    given = {"r": 2, "target_modules": ["q_proj", "v_proj", "embed_tokens"], **settings}
    return get_peft_model(tiny_model(), PeftLora(**given))


def names_by_group(model: nn.Module, groups: list[dict[str, Any]]) -> list[set[str]]:
    names = {id(tensor): name for name, tensor in model.named_parameters()}
    return [{names[id(tensor)] for tensor in group["params"]} for group in groups]


def test_biases_and_norms_are_not_decayed() -> None:
    """Oracle: transformers.Trainer.get_decay_parameter_names on the same model."""
    from transformers.trainer import Trainer

    model = tiny_model()
    decayed = set(Trainer.get_decay_parameter_names(None, model))  # type: ignore[arg-type]
    everything = {name for name, _ in model.named_parameters()}
    assert undecayed(model) == everything - decayed
    groups = parameter_groups(model, Rates(1e-3, 0.1))
    assert names_by_group(model, groups) == [decayed, everything - decayed]
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1e-3, 0.1), (1e-3, 0.0)]


def test_norms_are_known_by_their_class_not_their_name() -> None:
    """A LayerNorm called `gate` is not decayed; a Linear called `norm_proj` is."""
    model = nn.ModuleDict({"gate": nn.LayerNorm(3), "norm_proj": nn.Linear(3, 3), "batch": nn.BatchNorm1d(3)})
    assert undecayed(model) == {"gate.weight", "gate.bias", "norm_proj.bias", "batch.weight", "batch.bias"}


@pytest.mark.effect("loraplus_lr_ratio", "loraplus_lr_embedding")
@pytest.mark.parametrize("settings", [
    {}, {"bias": "all"}, {"bias": "lora_only"}, {"modules_to_save": ["lm_head"]}, {"use_dora": True, "target_modules": ["q_proj"]}])
def test_loraplus_groups_equal_pefts(settings: dict[str, Any]) -> None:
    """Oracle: peft.optimizers.create_loraplus_optimizer (empty groups left out)."""
    from peft.optimizers import create_loraplus_optimizer

    model = lora_model(**settings)
    theirs = create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16, loraplus_weight_decay=0.1, loraplus_lr_embedding=2e-6)
    filled = [group for group in theirs.param_groups if group["params"]]
    ours = parameter_groups(model, Rates(1e-3, 0.1, ratio=16, embedding=2e-6))
    assert names_by_group(model, ours) == names_by_group(model, filled)
    assert [(one["lr"], one["weight_decay"]) for one in ours] == [(one["lr"], one["weight_decay"]) for one in filled]


@pytest.mark.parametrize("ratio", [None, 16.0])
@pytest.mark.parametrize("settings", [{}, {"bias": "all", "modules_to_save": ["lm_head", "norm"]}])
def test_every_trainable_parameter_is_in_exactly_one_group(ratio: float | None, settings: dict[str, Any]) -> None:
    model = lora_model(**settings)
    groups = parameter_groups(model, Rates(1e-3, 0.1, ratio=ratio))
    grouped = [id(tensor) for group in groups for tensor in group["params"]]
    trainable = [id(tensor) for tensor in model.parameters() if tensor.requires_grad]
    assert sorted(grouped) == sorted(trainable) and len(set(grouped)) == len(grouped)


def one_step(optim: str, **settings: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """A linear layer's weight before and after one step of the optimizer on the gradient 0.5, 0.5, -2."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 1, bias=False)
    before = layer.weight.detach().clone()
    config = OptimizerConfig(optim=optim, learning_rate=0.1, **settings)
    optimizer = build_optimizer(layer, config, LoraConfig())
    layer.weight.grad = torch.tensor([[0.5, 0.5, -2.0]])
    optimizer.step()
    return before, layer.weight.detach()


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused"])
def test_adamw_first_step(optim: str) -> None:
    """By hand: after bias correction m = g, v = g^2, so w1 = w0 (1 - lr wd) - lr g / (|g| + eps)."""
    before, after = one_step(optim, weight_decay=0.5, adam_epsilon=0.5)
    expected = before * 0.95 - 0.1 * torch.tensor([[0.5 / 1.0, 0.5 / 1.0, -2.0 / 2.5]])
    torch.testing.assert_close(after, expected, rtol=1e-6, atol=1e-7)


def test_adamw_second_step_uses_the_betas() -> None:
    """By hand with beta1 = 0.5, beta2 = 0.75, g = 1 then 3: m = 0.5 * 0.5 + 1.5 = 1.75, m^ = 1.75 / 0.75; v = 0.25 * 0.75 + 2.25
    = 2.4375, v^ = 2.4375 / 0.4375; w = -lr (1 + m^ / sqrt(v^))."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    optimizer = build_optimizer(layer, OptimizerConfig(learning_rate=0.1, adam_beta1=0.5, adam_beta2=0.75), LoraConfig())
    for gradient in (1.0, 3.0):
        layer.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
    expected = -0.1 * (1 + (1.75 / 0.75) / math.sqrt(2.4375 / 0.4375))
    assert float(layer.weight.detach()) == pytest.approx(expected, rel=1e-6)


def test_adafactor_first_step() -> None:
    """By hand: at step 1 the factored second moment is exact for one row, so the update is sign(g), of root mean square 1 (not
    clipped), times the learning rate."""
    before, after = one_step("adafactor")
    torch.testing.assert_close(after, before - 0.1 * torch.tensor([[1.0, 1.0, -1.0]]), rtol=1e-5, atol=1e-6)


def test_adafactor_arguments_arrive() -> None:
    """clip_threshold 0.5 halves the update of root mean square 1."""
    before, after = one_step("adafactor", optim_args={"clip_threshold": 0.5, "eps": [1e-30, 1e-3]})
    torch.testing.assert_close(after, before - 0.05 * torch.tensor([[1.0, 1.0, -1.0]]), rtol=1e-5, atol=1e-6)


def test_amsgrad_arrives() -> None:
    layer = nn.Linear(2, 2)
    optimizer = build_optimizer(layer, OptimizerConfig(optim_args={"amsgrad": True}), LoraConfig())
    assert [group["amsgrad"] for group in optimizer.param_groups] == [True, True]


def test_loraplus_ratio_reaches_the_optimizer() -> None:
    optimizer = build_optimizer(lora_model(), OptimizerConfig(learning_rate=1e-3),
                                LoraConfig(loraplus_lr_ratio=8, loraplus_lr_embedding=5e-6))
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 5e-6, 8e-3]


def test_nothing_to_train_is_refused() -> None:
    layer = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(InputError, match="no weight of the model is trainable"):
        build_optimizer(layer, OptimizerConfig(), LoraConfig())


def test_names_agree_with_the_declaration() -> None:
    from dataclasses import fields

    declared = next(field for field in fields(OptimizerConfig) if field.name == "optim").metadata["param"].choices
    assert set(declared) == set(OPTIMIZERS.names()) == set(ARGUMENTS)


@pytest.mark.parametrize(("optim", "given", "message"), [
    ("adamw_torch_fused", {"foo": 1}, "optim_args: `foo` is no argument of adamw_torch_fused; it takes amsgrad"),
    ("adamw_torch", {"lr": 1}, "optim_args: `lr` has a parameter of its own; use learning_rate"),
    ("adamw_torch", {"amsgrad": "yes"}, "optim_args: amsgrad is 'yes'; use true or false"),
    ("adafactor", {"decay_rate": 0.8}, "optim_args: decay_rate is 0.8; use a number below 0"),
    ("adafactor", {"eps": [1e-30]}, "optim_args: eps is [1e-30]; use two numbers above 0"),
    ("adafactor", {"relative_step": True}, "use learning_rate"),
])
def test_wrong_optim_args_name_the_key(optim: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_arguments(optim, given)
    assert message in caught.value.line()

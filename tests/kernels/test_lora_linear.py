"""Fused LoRA layers. Oracles: the equation of Hu et al. with autograd, and peft's own forward on whole models."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.kernels.test_isolation import tiny
from tests.models.tiny import write_tiny
from tunewright.config.model import ModelConfig
from tunewright.config.optimization import PrecisionConfig
from tunewright.config.quantization import QuantizationConfig
from tunewright.kernels import lora_groups
from tunewright.kernels.lora_linear import Adapted, lora_linear, lora_linear_slow
from tunewright.kernels.taken import Taken
from tunewright.models.load import load_model
from tunewright.quantization.quantizer import quantizer

IDS = torch.randint(64, (2, 9), generator=torch.Generator().manual_seed(1))


def layers(*, bias: bool, ranks: tuple[int, ...] = (3, 1, 5)) -> tuple[Adapted, ...]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return tuple(Adapted(random(6 + i, 8), random(6 + i) if bias else None, random(rank, 8).requires_grad_(),
                         random(6 + i, rank).requires_grad_(), 0.5 + i) for i, rank in enumerate(ranks))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("ranks", [(4,), (3, 1, 5)])
def test_outputs_and_gradients(ranks: tuple[int, ...], first: bool, bias: bool) -> None:
    """Also where nothing before the layers trains (`first`), and where an output is not used."""
    several = layers(bias=bias, ranks=ranks)
    hidden = torch.randn(2, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_(not first)
    leaves = [one for layer in several for one in (layer.down, layer.up)] + ([] if first else [hidden])
    for used in (len(ranks), 1):
        values = [sum((one.sin() * (i + 1)).sum() for i, one in enumerate(function(hidden, several)[:used]))
                  for function in (lora_linear, lora_linear_slow)]
        torch.testing.assert_close(values[0], values[1], rtol=1e-13, atol=0)
        found, wanted = (torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True) for value in values)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def adapted(kind: str = "llama", **choices: Any) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(tiny(kind), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **choices))
    for name, weight in model.named_parameters():
        if "lora_B" in name or "lora_magnitude" in name:
            nn.init.normal_(weight, mean=float("magnitude" in name), std=0.3)
    return model.double()


def loss_and_gradients(model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(5)
    model.zero_grad()
    loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
    loss.backward()
    return loss.detach(), {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def fast_layers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Will hold the number of layers of every fast operation."""
    sizes: list[int] = []
    monkeypatch.setattr(lora_groups, "lora_linear", lambda hidden, parts: sizes.append(len(parts)) or lora_linear(hidden, parts))
    return sizes


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {}, "dropout": {"lora_dropout": 0.3}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True},
    "bias of the update": {"lora_bias": True}, "ranks by layer": {"rank_pattern": {"q_proj": 2, "up_proj": 7}},
    "some layers": {"exclude_modules": ["k_proj", "gate_proj"]},
}
OTHERS = {"dropout": "dropout at work", "dora": "DoRA", "bias of the update": "a bias of the update"}
"""Variants of which no layer takes the fast path in training."""


@pytest.mark.parametrize(("kind", "variant"), [
    *(("llama", variant) for variant in VARIANTS), *((kind, "plain") for kind in ("qwen3", "qwen3_moe", "gpt_oss", "gemma2"))])
def test_models_are_as_before(kind: str, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and every gradient of peft's own forward, in training and evaluation. What is told of the layers is what a training step
    then does, counted."""
    model = adapted(kind, **VARIANTS[variant]).train()
    wanted = loss_and_gradients(model)
    taken = lora_groups.switch_over(model)
    sizes = fast_layers(monkeypatch)
    found = loss_and_gradients(model)
    assert taken.number == sum(sizes) and (taken.number == 0) is (variant in OTHERS)
    adapted_layers = sum(hasattr(module, "lora_A") for module in model.modules())
    assert taken.number + sum(taken.others.values()) == adapted_layers > 0
    assert variant not in OTHERS or taken == Taken(0, {OTHERS[variant]: adapted_layers})
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    model.eval()
    with torch.no_grad():
        fast = model(input_ids=IDS).logits
        lora_groups.switch_back(model)
        torch.testing.assert_close(fast, model(input_ids=IDS).logits, rtol=1e-10, atol=1e-12)


def test_layers_that_read_one_input_run_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Query, key and value; gate and up; and the two others alone: 4 operations a layer instead of 7."""
    model = adapted().train()
    assert lora_groups.switch_over(model) == Taken(14, {})
    sizes = fast_layers(monkeypatch)
    loss_and_gradients(model)
    assert sizes == [3, 1, 2, 1] * 2


def test_with_gradient_checkpointing() -> None:
    """The forward pass that the backward pass repeats is the same."""
    model = adapted().train()
    wanted = loss_and_gradients(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    lora_groups.switch_over(model)
    torch.testing.assert_close(loss_and_gradients(model), wanted, rtol=1e-10, atol=1e-12)
    forwards = (module.__dict__.get("forward") for module in model.modules())
    held = [one.args[0] for one in forwards if getattr(one, "func", None) is lora_groups._forward]
    assert len(held) == 14
    assert all(group.source is None and not group.waiting for group in held), "what was computed again outlives its layer"


def test_switched_off_merged_and_several_adapters() -> None:
    """What peft does with the layer afterwards has its effect."""
    model = adapted().eval()
    lora_groups.switch_over(model)
    with torch.no_grad():
        tuned = model(input_ids=IDS).logits
        with model.disable_adapter():  # type: ignore[operator]
            plain = model(input_ids=IDS).logits
        assert (tuned - plain).abs().max() > 1e-2
        torch.testing.assert_close(plain, tiny("llama")(input_ids=IDS).logits, rtol=1e-10, atol=1e-12)
        model.merge_adapter()  # type: ignore[operator]
        torch.testing.assert_close(model(input_ids=IDS).logits, tuned, rtol=1e-9, atol=1e-10)
        model.unmerge_adapter()  # type: ignore[operator]
        torch.testing.assert_close(model(input_ids=IDS).logits, tuned, rtol=1e-9, atol=1e-10)


def test_a_trained_base_weight_gets_its_gradient() -> None:
    """A layer whose own weight trains beside its adapter runs peft's forward."""
    model = adapted().train()
    for name, weight in model.named_parameters():
        if "q_proj.base_layer" in name:
            weight.requires_grad_()
    wanted = loss_and_gradients(model)
    assert any("base_layer" in name for name in wanted[1])
    assert lora_groups.switch_over(model) == Taken(12, {"a trained base weight or bias": 2})
    torch.testing.assert_close(loss_and_gradients(model), wanted, rtol=1e-10, atol=1e-12)


def test_layers_that_drop_inputs_are_fast_where_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations counted: none in training, the 8 of the two layers in evaluation."""
    model = adapted(lora_dropout=0.3)
    lora_groups.switch_over(model)
    sizes = fast_layers(monkeypatch)
    model.train()(input_ids=IDS)
    assert sizes == []
    model.eval()(input_ids=IDS)
    assert sizes == [3, 1, 2, 1] * 2


def test_several_active_adapters_and_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second adapter on one layer of seven; with the first alone, that layer runs as before; with the second alone, the other six run
    without one. Operations of a training step, counted."""
    from peft import LoraConfig

    model: Any = adapted().train()
    model.add_adapter("second", LoraConfig(r=2, target_modules=["down_proj"]))
    model.double()
    assert lora_groups.switch_over(model) == Taken(14, {})
    for active, others in ((["default", "second"], {"several active adapters": 2}), (["second"], {"no active adapter": 12})):
        lora_groups.switch_back(model)
        model.base_model.set_adapter(active)
        taken = lora_groups.switch_over(model)
        with monkeypatch.context() as inner:
            sizes = fast_layers(inner)
            model(input_ids=IDS)
        assert taken == Taken(14 - sum(others.values()), others) and sum(sizes) == taken.number


@pytest.mark.parametrize(("narrow", "wanted"), [
    (None, Taken(0, {"weights in several number formats": 14})), (torch.bfloat16, Taken(14, {}))], ids=["plain", "autocast"])
def test_factors_over_narrower_weights(narrow: torch.dtype | None, wanted: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    """float32 over bfloat16 is as one number format under autocast only. Operations of a training step, counted."""
    model = adapted().train().to(torch.bfloat16)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = weight.data.float()
    assert lora_groups.switch_over(model, narrow=narrow) == wanted
    sizes = fast_layers(monkeypatch)
    with torch.autocast("cpu", narrow, enabled=narrow is not None):
        model(input_ids=IDS)
    assert sum(sizes) == wanted.number


def test_a_wrong_sum_is_seen_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The update with the other sign, where no proof without autocast could be made."""
    model = adapted().to(torch.bfloat16)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = weight.data.float()
    monkeypatch.setattr(lora_groups, "lora_linear",
                        lambda hidden, parts: lora_linear(hidden, tuple(one._replace(scaling=-one.scaling) for one in parts)))
    assert lora_groups.switch_over(model, narrow=torch.bfloat16) == Taken(0, {"it computes something else": 14})


@pytest.mark.parametrize("bits", [4, 8])
def test_layers_over_quantised_weights(bits: int, tmp_path: Path) -> None:
    """bitsandbytes has layers of its own for all but the output head, which is a plain one and is fast."""
    from peft import LoraConfig, get_peft_model

    settings = quantizer(QuantizationConfig(quantization_bit=bits), PrecisionConfig(), use_cpu=True)
    base = load_model(ModelConfig(model_name_or_path=str(write_tiny(tmp_path))), PrecisionConfig(), quantizer=settings)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "down_proj", "lm_head"]))
    assert lora_groups.switch_over(model) == Taken(1, {"quantised base weights": 4})


def test_an_input_changed_in_place_is_not_taken_for_the_old_one() -> None:
    """Outputs that wait belong to the numbers that they were computed from."""
    model = adapted().eval()
    lora_groups.switch_over(model)
    attention = next(module for module in model.modules() if type(module).__name__ == "LlamaAttention")
    hidden = torch.randn(1, 3, 32, dtype=torch.float64)
    with torch.no_grad():
        attention.q_proj(hidden)
        hidden.mul_(2)
        found = attention.k_proj(hidden)
        lora_groups.switch_back(model)
        torch.testing.assert_close(found, attention.k_proj(hidden), rtol=1e-12, atol=1e-12)


def test_in_inference_mode() -> None:
    """As generation runs; torch then does not tell whether a tensor was changed in place."""
    model = adapted().eval()
    with torch.no_grad():
        wanted = model(input_ids=IDS).logits
    lora_groups.switch_over(model)
    with torch.inference_mode():
        torch.testing.assert_close(model(input_ids=IDS).logits, wanted, rtol=1e-12, atol=1e-12)

"""Full and partial tuning: exactly which tensors train, and exact restoration from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.adapters.test_lora import assert_same, save, state
from tests.models.tiny import FAMILIES, probe_logits, tiny_model, train_steps, write_tiny
from tunewright.adapters.freeze import trainable_names
from tunewright.adapters.trainable import enable_gradient_checkpointing, make_trainable, resume_source
from tunewright.config.model import ModelConfig
from tunewright.config.optimization import PrecisionConfig
from tunewright.config.run import RunConfig
from tunewright.config.tuning import FreezeConfig, TuningConfig
from tunewright.errors import InputError
from tunewright.models.load import load_model

MLP = ("mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight")
ATTENTION = ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight", "self_attn.o_proj.weight")
NORMS = ("input_layernorm.weight", "post_attention_layernorm.weight")


def in_layer(number: int, *names: str) -> list[str]:
    return [f"model.layers.{number}.{name}" for name in names]


@pytest.mark.effect("freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules")
@pytest.mark.parametrize(("settings", "expected"), [
    ({"freeze_trainable_layers": 1}, in_layer(1, *ATTENTION, *MLP, *NORMS)),
    ({"freeze_trainable_layers": -1}, in_layer(0, *ATTENTION, *MLP, *NORMS)),
    ({"freeze_trainable_layers": 2, "freeze_trainable_modules": ("mlp",)}, in_layer(0, *MLP) + in_layer(1, *MLP)),
    ({"freeze_trainable_layers": 1, "freeze_trainable_modules": ("q_proj", "input_layernorm")},
     in_layer(1, "self_attn.q_proj.weight", "input_layernorm.weight")),
    ({"freeze_trainable_layers": 1, "freeze_trainable_modules": ("self_attn.v_proj",), "freeze_extra_modules": ("lm_head", "norm")},
     [*in_layer(1, "self_attn.v_proj.weight"), "model.norm.weight", "lm_head.weight"]),
    ({"freeze_trainable_layers": 0, "freeze_extra_modules": ("embed_tokens",)}, ["model.embed_tokens.weight"]),
])
def test_freeze_trains_exactly_these(settings: dict[str, Any], expected: list[str]) -> None:
    """By hand, as whole lists of names."""
    model = tiny_model("llama")
    run = RunConfig(tuning=TuningConfig(finetuning_type="freeze"), freeze=FreezeConfig(**settings))
    trained = make_trainable(model, run)
    assert [name for name, parameter in trained.named_parameters() if parameter.requires_grad] == expected


def test_freeze_in_gpt2() -> None:
    names = trainable_names(tiny_model("gpt2"), FreezeConfig(freeze_trainable_layers=1, freeze_trainable_modules=("attn",)))
    assert names == [f"transformer.h.1.attn.{module}.{kind}" for module in ("c_attn", "c_proj") for kind in ("weight", "bias")]


@pytest.mark.parametrize(("settings", "message"), [
    ({"freeze_trainable_layers": 3}, "freeze_trainable_layers is 3, but the model has 2 layers; use -2 to 2"),
    ({"freeze_trainable_modules": ("mpl",)}, "freeze_trainable_modules: 'mpl' matches no module of this model; use mlp"),
    ({"freeze_extra_modules": ("head",)}, "freeze_extra_modules: 'head' matches no module of this model; use lm_head"),
    ({"freeze_trainable_layers": 0}, "freeze_trainable_layers is 0 and freeze_extra_modules is empty: nothing would train; "
     "choose at least one layer or module"),
])
def test_freeze_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        trainable_names(tiny_model("llama"), FreezeConfig(**settings))
    assert str(caught.value) == message


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["full", "freeze"])
@pytest.mark.parametrize("opened_from", ["checkpoint", "base"])
def test_restored_bit_by_bit(tmp_path: Path, family: str, kind: str, opened_from: str) -> None:
    """Identity with the interrupted run, whichever of the two was opened; oracle for the file: plain transformers."""
    base = write_tiny(tmp_path / "base", family)
    run = RunConfig(model=ModelConfig(model_name_or_path=str(base)), tuning=TuningConfig(finetuning_type=kind),
                    freeze=FreezeConfig(freeze_trainable_layers=1))
    model = make_trainable(load_model(run.model, run.precision), run)
    assert model.training
    train_steps(model, 2)
    assert not torch.equal(probe_logits(model), probe_logits(tiny_model(family)))
    directory = save(model, tmp_path / "checkpoint", tmp_path)
    assert torch.equal(probe_logits(AutoModelForCausalLM.from_pretrained(directory)), probe_logits(model))
    source = resume_source(run, directory if opened_from == "checkpoint" else None)
    resumed = make_trainable(load_model(source, run.precision), run, checkpoint=directory)
    assert_same(state(resumed), state(model))
    assert [p.requires_grad for p in resumed.parameters()] == [p.requires_grad for p in model.parameters()]


def test_bfloat16_weights_are_restored_bit_by_bit(tmp_path: Path) -> None:
    base = write_tiny(tmp_path / "base")
    run = RunConfig(model=ModelConfig(model_name_or_path=str(base)), tuning=TuningConfig(finetuning_type="full"),
                    precision=PrecisionConfig(pure_bf16=True))
    model = make_trainable(load_model(run.model, run.precision), run)
    train_steps(model, 2)
    directory = save(model, tmp_path / "checkpoint", tmp_path)
    resumed = make_trainable(load_model(resume_source(run, directory), run.precision), run, checkpoint=directory)
    assert resumed.dtype == torch.bfloat16
    assert_same(state(resumed), state(model))


def test_adapters_need_lora() -> None:
    run = RunConfig(model=ModelConfig(adapter_name_or_path=("a",)), tuning=TuningConfig(finetuning_type="full"))
    with pytest.raises(InputError, match="adapter_name_or_path is given, but finetuning_type is full"):
        make_trainable(tiny_model("llama"), run)


def test_a_checkpoint_of_another_kind(tmp_path: Path) -> None:
    run = RunConfig(tuning=TuningConfig(finetuning_type="lora"))
    with pytest.raises(InputError, match="holds no adapter; resume with the finetuning_type it was made with"):
        make_trainable(tiny_model("llama"), run, checkpoint=write_tiny(tmp_path))


def test_sampling_settings_that_transformers_refuses_to_save(tmp_path: Path) -> None:
    """Llama-2's generation_config.json: a temperature without do_sample."""
    model = tiny_model("llama")
    model.generation_config.temperature = 0.6
    save(model, tmp_path / "saved", tmp_path)
    assert (tmp_path / "saved" / "generation_config.json").is_file()


@pytest.mark.parametrize("kind", ["full", "lora", "freeze"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_changes_no_gradient(kind: str, reentrant: bool) -> None:
    """Identity: the gradients without it."""
    run = RunConfig(tuning=TuningConfig(finetuning_type=kind))

    def gradients(checkpointed: bool) -> dict[str, torch.Tensor]:
        model = make_trainable(tiny_model("llama"), run)
        if checkpointed:
            enable_gradient_checkpointing(model, reentrant)
        ids = torch.randint(3, 96, (2, 9), generator=torch.Generator().manual_seed(7))
        model(input_ids=ids, labels=ids).loss.backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    plain, recomputed = gradients(False), gradients(True)
    assert plain.keys() == recomputed.keys()
    assert any(gradient.any() for gradient in plain.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-6, atol=1e-8, msg=name)

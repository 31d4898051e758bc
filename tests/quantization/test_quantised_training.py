"""Adapters over quantised weights, beyond one step. Oracles: peft's own preparation, the float model, one process, identity."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import prepare_model_for_kbit_training
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from tests.models.tiny import probe_logits, write_tiny
from tunewright.adapters.coverage import coverage
from tunewright.adapters.lora import load_adapter, save_adapter
from tunewright.adapters.trainable import enable_gradient_checkpointing, make_trainable
from tunewright.commands.train import train
from tunewright.config.model import ModelConfig
from tunewright.config.optimization import PrecisionConfig
from tunewright.config.quantization import QuantizationConfig
from tunewright.config.rules import quantization
from tunewright.config.rules.rule import Case
from tunewright.config.run import RunConfig
from tunewright.config.tuning import LoraConfig
from tunewright.dialects.read import read_config
from tunewright.errors import InputError
from tunewright.export.merge import export
from tunewright.inference.opening import open_model
from tunewright.models.load import load_model
from tunewright.quantization.quantizer import quantizer
from tunewright.selftest.workspace import Workspace


@pytest.fixture(autouse=True)
def quiet_random() -> Iterator[None]:
    """Runs seed the process's generators; other tests must not notice."""
    with torch.random.fork_rng():
        yield


def opened(directory: Path, precision: PrecisionConfig | None = None, **settings: Any) -> Any:
    precision = precision or PrecisionConfig()
    chosen = quantizer(QuantizationConfig(**settings), precision, use_cpu=True)
    return load_model(ModelConfig(model_name_or_path=str(directory)), precision, quantizer=chosen)


@pytest.mark.parametrize("bits", [4, 8])
def test_number_formats_are_those_of_pefts_preparation(tmp_path: Path, bits: int) -> None:
    """Oracle: prepare_model_for_kbit_training on a model in bfloat16. Norms, embeddings and head are float32 with it, and so with us,
    because they are loaded that way; and what trains is float32."""
    write_tiny(tmp_path)
    own = BitsAndBytesConfig(load_in_8bit=True) if bits == 8 else BitsAndBytesConfig(load_in_4bit=True)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=own, dtype=torch.bfloat16, device_map={"": "cpu"})
    theirs = prepare_model_for_kbit_training(plain, use_gradient_checkpointing=False)
    ours = opened(tmp_path, quantization_bit=bits)
    assert {name: one.dtype for name, one in ours.named_parameters()} == {name: one.dtype for name, one in theirs.named_parameters()}
    narrow = opened(tmp_path, PrecisionConfig(pure_bf16=True), quantization_bit=bits)
    narrow = make_trainable(narrow, RunConfig(lora=LoraConfig(lora_rank=2)))
    assert {one.dtype for one in narrow.parameters() if one.requires_grad} == {torch.float32}
    assert narrow.get_parameter("base_model.model.model.norm.weight").dtype == torch.bfloat16


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_gradient_checkpointing_changes_no_gradient(tmp_path: Path, bits: int, reentrant: bool) -> None:
    """Identity. The embedding's output is made to need a gradient, or the reentrant form would train nothing over a frozen base."""
    write_tiny(tmp_path)
    ids = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(1))
    gradients = []
    for is_on in (False, True):
        model = make_trainable(opened(tmp_path, quantization_bit=bits), RunConfig(lora=LoraConfig(lora_rank=2)))
        if is_on:
            enable_gradient_checkpointing(model, reentrant)
        model(input_ids=ids, labels=ids).loss.backward()
        gradients.append({name: one.grad for name, one in model.named_parameters() if one.requires_grad})
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
    assert any(one.abs().sum() > 0 for one in gradients[1].values())


@pytest.mark.parametrize("bits", [4, 8])
def test_dora_trains_over_quantised_weights(tmp_path: Path, bits: int) -> None:
    """Loss and gradients of two passes are those of DoRA over the same weights as floats. peft loses the scales of 8-bit weights."""
    from peft.utils.integrations import dequantize_module_weight

    write_tiny(tmp_path)
    few = opened(tmp_path, quantization_bit=bits)
    plain = opened(tmp_path)
    for name, module in plain.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            module.weight.data = dequantize_module_weight(few.get_submodule(name)).float().clone()
    few = opened(tmp_path, quantization_bit=bits)
    ids = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(1))
    run = RunConfig(lora=LoraConfig(lora_rank=2, use_dora=True))
    models = [make_trainable(one, run) for one in (few, plain)]
    for _ in range(2):
        losses = [model(input_ids=ids, labels=ids).loss for model in models]
        for loss in losses:
            loss.backward()
    torch.testing.assert_close(*losses, rtol=1e-2, atol=1e-3)
    theirs = dict(models[1].named_parameters())
    ours = {name: one.grad for name, one in models[0].named_parameters() if one.requires_grad}
    assert any("magnitude" in name for name in ours)
    far = torch.stack([(one - theirs[name].grad).norm() for name, one in ours.items()]).norm()
    assert far < 0.05 * torch.stack([theirs[name].grad.norm() for name in ours]).norm()


def test_the_report_counts_numbers_and_not_bytes(tmp_path: Path) -> None:
    """The float model is the oracle: quantising changes neither what there is nor what trains."""
    write_tiny(tmp_path)
    run = RunConfig(lora=LoraConfig(lora_rank=4))
    reports = [coverage(make_trainable(opened(tmp_path, quantization_bit=bits), run)) for bits in (None, 4, 8)]
    assert reports[0] == reports[1] == reports[2]


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "gemma"])
@pytest.mark.parametrize("bits", [4, 8])
def test_an_adapter_comes_back_and_fits_the_float_model_too(tmp_path: Path, family: str, bits: int) -> None:
    """Saved from quantised weights: the same outputs on them, and on the float weights what these give with it, near by."""
    write_tiny(tmp_path / "m", family)
    adapted = make_trainable(opened(tmp_path / "m", quantization_bit=bits), RunConfig(lora=LoraConfig(lora_rank=4)))
    with torch.no_grad():
        for number, one in enumerate(one for one in adapted.parameters() if one.requires_grad):
            one.normal_(std=0.1, generator=torch.Generator().manual_seed(number))
    (tmp_path / "a").mkdir()
    save_adapter(adapted, tmp_path / "a")
    live = probe_logits(adapted)
    again = load_adapter(opened(tmp_path / "m", quantization_bit=bits), tmp_path / "a", trainable=False)
    assert torch.equal(probe_logits(again), live)
    plain, base = opened(tmp_path / "m"), opened(tmp_path / "m", quantization_bit=bits)
    floats, rounding = probe_logits(plain), (probe_logits(base) - probe_logits(plain)).norm()
    added = probe_logits(load_adapter(plain, tmp_path / "a", trainable=False))
    assert (added - live).norm() < 3 * rounding and (added - floats).norm() > (added - live).norm()


def test_a_quantised_module_cannot_train_in_full(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    with pytest.raises(InputError, match=r"additional_target: model.layers.0.mlp.up_proj is quantised, and quantised weights cannot train"):
        make_trainable(opened(tmp_path, quantization_bit=4), RunConfig(lora=LoraConfig(additional_target=("up_proj",))))
    both = make_trainable(opened(tmp_path, quantization_bit=4), RunConfig(lora=LoraConfig(additional_target=("embed_tokens", "lm_head"))))
    assert both.get_parameter("base_model.model.lm_head.modules_to_save.default.weight").requires_grad


def test_experts_that_stay_floats_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Fused experts are the largest part of such a model, and bitsandbytes leaves them."""
    write_tiny(tmp_path, "qwen3_moe")
    with caplog.at_level(logging.WARNING):
        model = opened(tmp_path, quantization_bit=4)
    assert ("the experts (down_proj, gate_up_proj) stay in torch.float32: they are fused tensors, and only linear layers are quantised"
            in caplog.text)
    assert model.get_parameter("model.layers.0.mlp.experts.down_proj").dtype == torch.float32


def test_bytes_are_multiplied_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """bitsandbytes tells at each product that it rounds; what else it tells is still heard."""
    write_tiny(tmp_path)
    with caplog.at_level(logging.WARNING, logger="bitsandbytes"):
        probe_logits(opened(tmp_path, quantization_bit=8))
        logging.getLogger("bitsandbytes.autograd._functions").warning("something else")
    assert [record.getMessage() for record in caplog.records if record.name.startswith("bitsandbytes")] == ["something else"]


@pytest.mark.slow
def test_the_loss_falls_and_the_merge_answers_like_the_trained_model(tmp_path: Path) -> None:
    """In each of eight steps on the same rows. The merged model is the float base with the adapter: as far from the quantised one as
    the bases are apart."""
    workspace = Workspace.make(tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    settings = workspace.settings(tmp_path / "a", quantization_bit=4, quantization_type="fp4", max_steps=8, logging_steps=1,
                                  per_device_train_batch_size=22, num_train_epochs=8, learning_rate=0.005,
                                  lr_scheduler_type="constant", warmup_ratio=0, lora_rank=16)
    train(read_config([f"{name}={value}" for name, value in settings.items()], purpose="train").resolve().config)
    log = json.loads((tmp_path / "a" / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 8 and all(later < sooner for sooner, later in itertools.pairwise(losses))
    export(read_config([f"model_name_or_path={tmp_path / 'a'}", f"export_dir={tmp_path / 'merged'}"], purpose="export").config)
    asked = [f"model_name_or_path={tmp_path / 'a'}", "quantization_bit=4", "quantization_type=fp4"]
    live = probe_logits(open_model(read_config(asked, purpose="chat").config).model)
    merged = probe_logits(open_model(read_config([f"model_name_or_path={tmp_path / 'merged'}"], purpose="chat").config).model)
    bases = [probe_logits(opened(tmp_path / "model", **few)) for few in ({}, {"quantization_bit": 4, "quantization_type": "fp4"})]
    assert (merged - live).norm() < 3 * (bases[0] - bases[1]).norm()
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_two_ranks_train_as_one(tmp_path: Path, bits: int) -> None:
    """Oracle: one process with as many rows to a step."""
    from tunewright.cli import main

    workspace = Workspace.make(tmp_path)
    shared = {"quantization_bit": bits, "max_steps": 3, "logging_steps": 1, "use_cpu": True, "save_strategy": "no"}
    two = {**shared, "num_processes": 2, "per_device_train_batch_size": 2}
    for name, settings in (("one", {**shared, "per_device_train_batch_size": 4}), ("two", two)):
        assert main(["train", *(f"{key}={value}" for key, value in workspace.settings(tmp_path / name, **settings).items())]) == 0
    ends = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two")]
    for name, one in ends[0].items():
        torch.testing.assert_close(ends[1][name], one, rtol=0, atol=2e-4)


def test_a_model_with_code_of_its_own_is_quantised_too(tmp_path: Path) -> None:
    """The QLoRA script trusts such code and quantises by default, both at once. Identity with the same model by transformers' own code."""
    write_tiny(tmp_path)
    chosen = quantizer(QuantizationConfig(quantization_bit=4), PrecisionConfig(), use_cpu=True)
    trusted = load_model(ModelConfig(model_name_or_path=str(tmp_path), trust_remote_code=True), PrecisionConfig(), quantizer=chosen)
    assert torch.equal(probe_logits(trusted), probe_logits(opened(tmp_path, quantization_bit=4)))
    run = read_config(["dialect=qlora_script", "model_name=demo", "data_path=rows.jsonl"]).config
    assert run.quantization.quantization_bit == 4 and run.model.trust_remote_code
    assert not [rule for rule in quantization.RULES if rule.test(Case(run, frozenset(), "train"))]

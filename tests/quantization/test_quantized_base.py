"""Base models in 4 and 8 bits. Oracles: bitsandbytes' own functions on the float weights, plain transformers with peft, and identity."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from tests.models.tiny import write_tiny
from tunewright.adapters.trainable import make_trainable
from tunewright.commands.train import train
from tunewright.config import tuning
from tunewright.config.model import ModelConfig
from tunewright.config.optimization import PrecisionConfig
from tunewright.config.quantization import QuantizationConfig
from tunewright.config.run import RunConfig
from tunewright.dialects.read import read_config
from tunewright.errors import ConfigError
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


def float_weight(module: Any) -> torch.Tensor:
    """The weight [O, I] of a quantised layer as numbers."""
    weight = module.weight
    if isinstance(weight, bnb.nn.Params4bit):
        return bnb.functional.dequantize_4bit(weight.data, weight.quant_state)
    return weight.data.float() * (weight.SCB.float() / 127).unsqueeze(1)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what is mapped")
def test_the_file_is_let_go(tmp_path: Path) -> None:
    """Oracle: the kernel's table of what this process has mapped."""
    write_tiny(tmp_path)
    model = opened(tmp_path, quantization_bit=4)
    assert model is not None and str(tmp_path) not in Path("/proc/self/maps").read_text(encoding="utf-8")


@pytest.mark.effect("quantization_bit", "quantization_type", "double_quantization")
@pytest.mark.parametrize("settings", [
    {"quantization_bit": 4}, {"quantization_bit": 4, "quantization_type": "fp4"}, {"quantization_bit": 4, "double_quantization": False}])
def test_four_bit_weights_are_those_of_bitsandbytes(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Oracle: the library's functions on the weights of the file. Embeddings, norms and the head are the file's own, bit by bit."""
    write_tiny(tmp_path)
    model, file = opened(tmp_path, **settings), load_file(tmp_path / "model.safetensors")
    quantised = {name: module for name, module in model.named_modules() if isinstance(module, bnb.nn.Linear4bit)}
    assert len(quantised) == 14
    for name, module in quantised.items():
        codes, state = bnb.functional.quantize_4bit(
            file[f"{name}.weight"], quant_type=settings.get("quantization_type", "nf4"),
            compress_statistics=settings.get("double_quantization", True))
        assert torch.equal(module.weight.data, codes)
        assert torch.equal(float_weight(module), bnb.functional.dequantize_4bit(codes, state).to(float_weight(module).dtype))
        assert module.weight.quant_state.nested == settings.get("double_quantization", True)
    for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
        assert torch.equal(model.get_parameter(name), file[name])


def test_eight_bit_weights_are_those_of_bitsandbytes(tmp_path: Path) -> None:
    """Oracle: the library's function. By hand: w ~ c / 127 * m, m the largest magnitude of the row, c at most one step from w / m * 127."""
    write_tiny(tmp_path)
    model, file = opened(tmp_path, quantization_bit=8), load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.mlp.up_proj"
    weight, module = file[f"{name}.weight"], model.get_submodule(name)
    codes, _, _ = bnb.functional.int8_vectorwise_quant(weight.half())
    assert torch.equal(module.weight.data, codes)
    step = weight.abs().amax(1, keepdim=True) / 127
    assert bool(((float_weight(module) - weight).abs() <= step * 1.01).all())


def test_weights_take_an_eighth_of_the_memory(tmp_path: Path) -> None:
    """Half a byte instead of four, for the layers that are quantised."""
    write_tiny(tmp_path)
    sizes = [sum(module.weight.numel() * module.weight.element_size() for name, module in model.named_modules() if name.endswith("_proj"))
             for model in (opened(tmp_path), opened(tmp_path, quantization_bit=4))]
    assert sizes[1] * 8 == sizes[0]


@pytest.mark.effect("compute_dtype")
@pytest.mark.parametrize(("precision", "named", "expected"), [
    (PrecisionConfig(), None, torch.float32), (PrecisionConfig(bf16=True), None, torch.bfloat16),
    (PrecisionConfig(pure_bf16=True), None, torch.bfloat16), (PrecisionConfig(bf16=True), "float32", torch.float32),
    (PrecisionConfig(), "float16", torch.float16)])
def test_products_are_computed_in_the_format_of_the_run(
    tmp_path: Path, precision: PrecisionConfig, named: str | None, expected: torch.dtype,
) -> None:
    write_tiny(tmp_path)
    model = opened(tmp_path, precision, quantization_bit=4, compute_dtype=named)
    layers = [module for module in model.modules() if isinstance(module, bnb.nn.Linear4bit)]
    assert {module.compute_dtype for module in layers} == {expected}
    model(torch.tensor([[3, 4, 5]])).logits.sum().backward()
    assert {module.compute_dtype for module in layers} == {expected}


@pytest.mark.parametrize("settings", [{"quantization_bit": 4}, {"quantization_bit": 8}])
@pytest.mark.parametrize("variant", [{}, {"use_dora": True}, {"use_rslora": True}])
def test_loss_and_gradients_equal_plain_peft(tmp_path: Path, settings: dict[str, Any], variant: dict[str, bool]) -> None:
    """Oracle: transformers and peft by themselves, with the same factors. `all` finds every quantised layer."""
    write_tiny(tmp_path)
    ours = make_trainable(opened(tmp_path, **settings), RunConfig(
        quantization=QuantizationConfig(**settings), lora=tuning.LoraConfig(lora_rank=4, **variant)))
    own = BitsAndBytesConfig(load_in_8bit=True) if settings["quantization_bit"] == 8 else BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=own, dtype=torch.float32, device_map={"": "cpu"})
    theirs = get_peft_model(plain, LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        task_type="CAUSAL_LM", **variant))
    factors = {name: parameter for name, parameter in theirs.named_parameters() if parameter.requires_grad}
    ids = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(1))
    ours.train()
    theirs.train()
    with torch.no_grad():
        for number, (name, parameter) in enumerate(ours.named_parameters()):
            if parameter.requires_grad and "magnitude" not in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(number))
                factors[name].copy_(parameter)
    assert {name for name, parameter in ours.named_parameters() if parameter.requires_grad} == set(factors)
    losses = [model(input_ids=ids, labels=ids).loss for model in (ours, theirs)]
    for loss in losses:
        loss.backward()
    assert torch.equal(*losses)
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(parameter.grad, factors[name].grad), name


def run(workspace: Workspace, output_dir: Path, **changes: Any) -> None:
    settings = workspace.settings(output_dir, **{"quantization_bit": 4, "save_steps": 3, "max_steps": 6, "logging_steps": 1, **changes})
    train(read_config([f"{name}={value}" for name, value in settings.items()], purpose="train").resolve().config)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_training_learns_resumes_exactly_and_answers(tmp_path: Path, bits: int) -> None:
    """The base of a continued run is quantised anew, to the same bits. Gradient checkpointing changes no loss."""
    workspace = Workspace.make(tmp_path)
    run(workspace, tmp_path / "a", quantization_bit=bits)
    losses = [entry["loss"] for entry in json.loads((tmp_path / "a" / "trainer_state.json").read_text())["log_history"] if "loss" in entry]
    assert losses[-1] < losses[0]
    run(workspace, tmp_path / "b", quantization_bit=bits, gradient_checkpointing=True)
    for path in (tmp_path / "b").iterdir():  # as if the run had been killed after its first checkpoint
        if path.name not in ("checkpoint-3", "run.json", "data_audit.jsonl"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    run(workspace, tmp_path / "b", quantization_bit=bits, gradient_checkpointing=True)
    ends = [load_file(tmp_path / name / "adapter_model.safetensors") for name in "ab"]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    answering = read_config([f"model_name_or_path={tmp_path / 'a'}", f"quantization_bit={bits}"], purpose="chat").config
    assert any(isinstance(module, bnb.nn.Linear4bit | bnb.nn.Linear8bitLt) for module in open_model(answering).model.modules())


@pytest.mark.slow
def test_the_adapter_is_merged_into_the_float_base(tmp_path: Path) -> None:
    """Oracle: W + alpha / r * B A on the weights of the original file, computed here."""
    from tunewright.export.merge import export

    workspace = Workspace.make(tmp_path)
    run(workspace, tmp_path / "a", lora_target="q_proj", lora_rank=4, lora_alpha=8)
    export(read_config([f"model_name_or_path={tmp_path / 'a'}", f"export_dir={tmp_path / 'merged'}", "quantization_bit=4"],
                       purpose="export").config)
    base, merged = (load_file(tmp_path / name / "model.safetensors") for name in ("model", "merged"))
    factors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    for name, weight in base.items():
        a, b = (factors.get(f"base_model.model.{name.removesuffix('.weight')}.lora_{one}.weight") for one in "AB")
        expected = weight if a is None else weight + 2.0 * b @ a
        torch.testing.assert_close(merged[name], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.effect("quantization_method")
@pytest.mark.parametrize(("dialect", "value", "told"), [
    ("llamafactory", "hqq", "not built yet"), ("cli_reference", "gptq", "."), ("native", "awq", ".")])
def test_other_ways_to_quantise_are_refused_with_the_reason(dialect: str, value: str, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"quantization_method: .*{value}.*{told}"):
        read_config(["--quantization_bit", "4", "--quantization_method", value], dialect=dialect)


@pytest.mark.effect("quantization_device_map")
def test_where_the_weights_go(tmp_path: Path) -> None:
    """`auto` leaves the placement to accelerate, which on a machine with a CPU alone puts everything there."""
    write_tiny(tmp_path)
    chosen = quantizer(QuantizationConfig(quantization_bit=4, quantization_device_map="auto"), PrecisionConfig(), use_cpu=True)
    fixed = quantizer(QuantizationConfig(quantization_bit=4), PrecisionConfig(), use_cpu=True)
    assert chosen is not None and chosen.device_map == "auto" and chosen.settings.quant_method.value == "bitsandbytes"
    assert fixed is not None and fixed.device_map == {"": torch.device("cpu")}
    model = load_model(ModelConfig(model_name_or_path=str(tmp_path)), PrecisionConfig(), quantizer=chosen)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}

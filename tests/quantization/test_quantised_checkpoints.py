"""Checkpoints that are quantised already. Oracles: transformers, which saved them, the unquantised files, and identity."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from tests.models.tiny import probe_logits, write_tiny
from tunewright.adapters.trainable import make_trainable
from tunewright.commands.preflight import read_ready
from tunewright.commands.train import train
from tunewright.config.model import ModelConfig
from tunewright.config.optimization import PrecisionConfig
from tunewright.config.quantization import QuantizationConfig
from tunewright.config.run import RunConfig
from tunewright.config.tuning import LoraConfig, TuningConfig
from tunewright.dialects.read import read_config
from tunewright.errors import InputError, TunewrightError
from tunewright.inference.opening import open_model
from tunewright.models import quantised
from tunewright.models.load import load_model
from tunewright.models.unopened import tensor_shapes
from tunewright.quantization import bitsandbytes
from tunewright.quantization.quantizer import quantizer
from tunewright.selftest.workspace import Workspace

FP32 = PrecisionConfig()


@pytest.fixture(autouse=True)
def quiet_random() -> Iterator[None]:
    """Runs seed the process's generators; other tests must not notice."""
    with torch.random.fork_rng():
        yield


def write_quantised(source: Path, target: Path, bits: int) -> Path:
    """The model of `source` as transformers quantises and saves it, with the other files of the directory."""
    settings = BitsAndBytesConfig(load_in_8bit=True) if bits == 8 else BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    model = AutoModelForCausalLM.from_pretrained(source, quantization_config=settings, dtype=torch.float32, device_map={"": "cpu"})
    model.save_pretrained(target)
    for path in source.iterdir():
        if not (target / path.name).exists():
            shutil.copy(path, target)
    return target


def opened(directory: Path, **settings: Any) -> Any:
    chosen = quantizer(QuantizationConfig(**settings), FP32, use_cpu=True)
    return load_model(ModelConfig(model_name_or_path=str(directory)), FP32, quantizer=chosen)


@pytest.mark.parametrize("bits", [4, 8])
def test_it_answers_as_the_model_that_was_saved(tmp_path: Path, bits: int) -> None:
    """Identity: quantising while loading, and loading what was quantised before, are the same model."""
    source = write_tiny(tmp_path / "float")
    saved = write_quantised(source, tmp_path / "few", bits)
    model = opened(saved)
    assert model.is_quantized
    assert torch.equal(probe_logits(model), probe_logits(opened(source, quantization_bit=bits)))


@pytest.mark.parametrize("bits", [4, 8])
def test_shapes_are_those_of_the_unquantised_files(tmp_path: Path, bits: int) -> None:
    """Without opening a weight: what is packed into bytes counts as the numbers that it stands for."""
    source = write_tiny(tmp_path / "float")
    assert tensor_shapes(write_quantised(source, tmp_path / "few", bits)) == tensor_shapes(source)


def test_it_is_not_quantised_again_nor_taken_for_floats(tmp_path: Path) -> None:
    saved = write_quantised(write_tiny(tmp_path / "float"), tmp_path / "few", 4)
    with pytest.raises(InputError, match=r"config.json: the weights are quantised already \(bitsandbytes, 4 bits\), but quantization_bit "
                                         "is 8; remove quantization_bit"):
        opened(saved, quantization_bit=8)
    with pytest.raises(InputError, match="floating point are needed; use the unquantised model"):
        load_model(ModelConfig(model_name_or_path=str(saved)), FP32)
    full = RunConfig(tuning=TuningConfig(finetuning_type="full"))
    with pytest.raises(InputError, match="quantised weights cannot train, but finetuning_type is full"):
        make_trainable(opened(saved), full)
    with pytest.raises(InputError, match="pissa_init takes weights apart, and those of the base are quantised"):
        make_trainable(opened(saved), RunConfig(lora=LoraConfig(pissa_init=True)))


REFUSED = [
    ("train", ["quantization_bit=4"], "command line: quantization_bit: 4 bits, but the weights have them already"),
    ("chat", ["quantization_bit=8"], "command line: quantization_bit: 8 bits, but the weights have them already"),
    ("train", ["finetuning_type=full"], "command line: finetuning_type: quantised weights cannot train, but finetuning_type is full"),
    ("train", ["pissa_init=true"], "command line: pissa_init: needs weights in floating point, but those of the base have 4 bits"),
    ("chat", ["merge_lora=true"], "command line: merge_lora: needs weights in floating point, but those of the base have 4 bits"),
    ("export", ["export_dir=e"], "command line: model_name_or_path: weights in floating point are needed, but those of"),
]


@pytest.mark.parametrize(("purpose", "words", "expected"), REFUSED, ids=[f"{purpose} {words[0]}" for purpose, words, _ in REFUSED])
def test_what_its_weights_rule_out_is_told_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, purpose: Any, words: list[str], expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    workspace = Workspace.make(tmp_path)
    saved = write_quantised(workspace.path / "model", tmp_path / "few", 4)
    settings = workspace.settings(tmp_path / "out", model_name_or_path=saved)
    given = [f"{name}={value}" for name, value in settings.items()] if purpose == "train" else [f"model_name_or_path={saved}"]
    with pytest.raises(TunewrightError) as refused:
        read_ready([*given, *words], purpose)
    assert [line for line in str(refused.value).splitlines() if line.startswith(expected)], str(refused.value)
    assert not (tmp_path / "out").exists()


def packed(**changes: Any) -> dict[str, Any]:
    return {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": "nf4", **changes}


@pytest.mark.parametrize(("said", "expected"), [
    ({"quant_method": "gptq", "bits": 4}, "the weights are quantised (gptq), and only those of bitsandbytes can be opened; they need the "
                                          "package gptqmodel, which is not used here; use the unquantised model"),
    ({"quant_method": "awq"}, "they need the package gptqmodel"),
    ({"quant_method": "of tomorrow"}, "the weights are quantised (of tomorrow), and only those of bitsandbytes can be opened; use"),
    ("yes", "the weights are quantised (an unnamed method)"),
    (packed(bnb_4bit_compute_dtype="load"), "bnb_4bit_compute_dtype is 'load'; the file is damaged or hostile"),
    (packed(bnb_4bit_quant_type=4), "bnb_4bit_quant_type is 4"), (packed(load_in_8bit=1), "load_in_8bit is 1"),
    (packed(load_in_8bit=True), "neither 4 bits nor 8, or both"), (packed(load_in_4bit=False), "neither 4 bits nor 8, or both"),
    (packed(llm_int8_skip_modules="lm_head"), "llm_int8_skip_modules is no list of names"),
    (packed(llm_int8_threshold="6"), "llm_int8_threshold is '6'"),
])
def test_other_methods_and_broken_settings_are_refused(tmp_path: Path, said: Any, expected: str) -> None:
    """In one line that names the file, before the model is opened."""
    with pytest.raises(InputError) as refused:
        quantised.with_known_quantisation({"quantization_config": said}, tmp_path / "config.json")
    assert str(refused.value).startswith(f"{tmp_path / 'config.json'}: ") and expected in str(refused.value)
    assert "\n" not in str(refused.value)


def test_only_what_the_weights_need_is_kept_of_the_settings(tmp_path: Path) -> None:
    found = quantised.with_known_quantisation({"quantization_config": packed(modules_to_import="os"), "model_type": "llama"}, tmp_path)
    assert found == {"model_type": "llama", "quantization_config": {**packed(), "llm_int8_skip_modules": None, "llm_int8_threshold": 6.0}}
    assert quantised.with_known_quantisation({"quantization_config": None, "a": 1}, tmp_path) == {"a": 1}


def test_a_damaged_state_is_told(tmp_path: Path) -> None:
    """The tensor that says how a weight is packed holds text; other bytes in it are damage."""
    from safetensors.torch import save_file

    name = "a.weight.quant_state.bitsandbytes__nf4"
    save_file({"a.weight": torch.zeros(8, 1, dtype=torch.uint8), name: torch.zeros(9, dtype=torch.uint8)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=f"weights file damaged: .*model.safetensors: {name} holds no shape"):
        tensor_shapes(tmp_path)


def without_bitsandbytes(name: str) -> object | None:
    return None if name == "bitsandbytes" else object()


@pytest.mark.parametrize("open_it", [lambda path: opened(path / "float", quantization_bit=4), lambda path: opened(path / "few")])
def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_it: Callable[[Path], Any]) -> None:
    """The border: what Python says of packages that are not installed."""
    write_quantised(write_tiny(tmp_path / "float"), tmp_path / "few", 4)
    monkeypatch.setattr(bitsandbytes, "find_spec", without_bitsandbytes)
    with pytest.raises(InputError, match=r"a quantised base model \(\w+\) needs the package `bitsandbytes`, which is not installed; "
                                         r'run: pip install "tunewright\[quant\]"'):
        open_it(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_training_on_it_is_training_on_the_model_quantised_while_loading(tmp_path: Path, bits: int) -> None:
    """Identity, over a run that is continued after its first checkpoint; the files of the base stay as they were."""
    workspace = Workspace.make(tmp_path)
    saved = write_quantised(workspace.path / "model", tmp_path / "few", bits)
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    run(workspace, tmp_path / "a", quantization_bit=bits)
    run(workspace, tmp_path / "b", model_name_or_path=saved)
    for path in (tmp_path / "b").iterdir():  # as if the run had been killed after its first checkpoint
        if path.name not in ("checkpoint-3", "run.json", "data_audit.jsonl"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    run(workspace, tmp_path / "b", model_name_or_path=saved)
    ends = [load_file(tmp_path / name / "adapter_model.safetensors") for name in "ab"]
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert json.loads((tmp_path / "b" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(saved)
    answering = read_config([f"model_name_or_path={tmp_path / 'b'}"], purpose="chat").config
    assert any(module.__class__.__name__ in ("Linear4bit", "Linear8bitLt") for module in open_model(answering).model.modules())


def run(workspace: Workspace, output_dir: Path, **changes: Any) -> None:
    settings = workspace.settings(output_dir, **{"save_steps": 3, "max_steps": 6, "logging_steps": 1, **changes})
    train(read_ready([f"{name}={value}" for name, value in settings.items()], "train").config)

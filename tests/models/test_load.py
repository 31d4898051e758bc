"""Models are opened exactly as transformers opens them, and every damaged or hostile directory is refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import tunewright
from tests.models.tiny import FAMILIES, probe_logits, tiny_model, write_tiny
from tunewright.config.model import ModelConfig, TokenizerConfig
from tunewright.config.optimization import PrecisionConfig
from tunewright.errors import InputError
from tunewright.models.families import decoder_layers, fused_experts, kind, linear_layers
from tunewright.models.load import check_vocabulary, load_model
from tunewright.models.tokenizer import load_tokenizer
from tunewright.selftest.tiny import write_model

FP32 = PrecisionConfig()


def model_at(path: Path | str, **fields: object) -> ModelConfig:
    return ModelConfig(model_name_or_path=str(path), **fields)


def change_config(directory: Path, **values: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def refusal(config: ModelConfig) -> str:
    with pytest.raises(InputError) as caught:
        load_model(config, FP32)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_forward_equals_plain_transformers(tmp_path: Path, family: str) -> None:
    """Oracle: the model that transformers opens from the same directory, bit by bit."""
    write_tiny(tmp_path, family)
    ours = load_model(model_at(tmp_path), FP32)
    assert torch.equal(probe_logits(ours), probe_logits(AutoModelForCausalLM.from_pretrained(tmp_path)))
    assert ours.dtype == torch.float32
    assert ours.name_or_path == str(tmp_path.resolve())


def test_number_formats(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    assert load_model(model_at(tmp_path), PrecisionConfig(pure_bf16=True)).dtype == torch.bfloat16
    assert load_model(model_at(tmp_path), PrecisionConfig(bf16=True)).dtype == torch.float32
    assert load_model(model_at(tmp_path), FP32, dtype=torch.float64).dtype == torch.float64


@pytest.mark.effect("flash_attn")
@pytest.mark.parametrize(("asked", "got"), [("disabled", "eager"), ("sdpa", "sdpa"), ("auto", "sdpa")])
def test_attention_comes_from_our_configuration(tmp_path: Path, asked: str, got: str) -> None:
    write_tiny(tmp_path)
    assert load_model(model_at(tmp_path, flash_attn=asked), FP32).config._attn_implementation == got
    assert load_model(model_at(tmp_path, flash_attn=asked), FP32, attention="eager").config._attn_implementation == "eager"


def test_flash_attention_without_its_package(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    assert refusal(model_at(tmp_path, flash_attn="fa2")) == (
        'FlashAttention 2 (flash_attn: fa2) needs the package `flash-attn`, which is not installed; run: pip install "tunewright[flash]"')


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation"])
def test_a_foreign_config_cannot_choose_a_kernel(tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers would fetch `evil/kernel` from the network; here no socket is opened and our choice stands."""
    import socket

    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    write_tiny(tmp_path)
    change_config(tmp_path, **{key: "evil/kernel", "auto_map": {"AutoModelForCausalLM": "evil.Model"}})
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\n")
    monkeypatch.setattr(socket, "socket", no_network)
    loaded = load_model(model_at(tmp_path), FP32)
    assert loaded.config._attn_implementation == "sdpa"
    assert not (tmp_path / "canary").exists()


def test_directory_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    assert refusal(model_at(tmp_path / "nope")) == (
        f"model_name_or_path: path not found: {tmp_path}/nope; give an existing directory or a hub id such as `org/name`")
    assert refusal(model_at(tmp_path / "empty")) == (
        f"model directory {tmp_path}/empty has no config.json; give the directory that holds config.json")
    assert "is a file, not a model directory" in refusal(model_at(tmp_path / "file"))
    assert refusal(ModelConfig()) == "no model is given; set model_name_or_path to a directory, a hub id or `demo`"
    assert "needs a pinned commit" in refusal(model_at("org/name", trust_remote_code=True))


@pytest.mark.parametrize("trusted", [False, True])
def test_a_hub_model_that_cannot_be_had(trusted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = refusal(model_at("nobody/nothing", trust_remote_code=trusted, model_revision="0" * 40))
    assert message.startswith("model_name_or_path: nobody/nothing is no directory here, and the hub did not give it (")
    assert message.endswith("; check the spelling, model_revision and the network")


def test_broken_json_names_line(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    (tmp_path / "config.json").write_text('{\n "a": 1,\n}')
    assert refusal(model_at(tmp_path)).startswith(f"{tmp_path}/config.json:3: not valid JSON")


@pytest.mark.parametrize(("key", "value"), [
    ("num_hidden_layers", 10**6), ("num_attention_heads", 0), ("hidden_size", -64), ("hidden_size", "64"), ("vocab_size", True),
    ("intermediate_size", 1.5)])
def test_hostile_sizes(tmp_path: Path, key: str, value: object) -> None:
    write_tiny(tmp_path)
    change_config(tmp_path, **{key: value})
    assert refusal(model_at(tmp_path)).startswith(f"{tmp_path}/config.json: {key} is {value!r}, not an integer from")


@pytest.mark.parametrize(("changes", "expected"), [
    ({"model_type": "nope"}, "model_type 'nope' is not known to transformers"),
    ({"rope_parameters": {"rope_type": "nope"}, "rope_scaling": None}, "cannot be built"),
    ({"quantization_config": {"quant_method": "gptq"}}, "the weights are quantised (gptq)"),
    ({"num_hidden_layers": 3}, "lack model.layers.2."),
    ({"hidden_size": 64}, "cannot be built"),
    ({"text_config": {"attn_implementation": "planted/kernel"}}, "config.json: text_config: a llama has no model within the model"),
])
def test_configs_that_do_not_fit(tmp_path: Path, changes: dict[str, object], expected: str) -> None:
    write_tiny(tmp_path)
    change_config(tmp_path, **changes)
    assert expected in refusal(model_at(tmp_path))


def test_truncated_weights_name_file_and_bytes(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    assert refusal(model_at(tmp_path)) == (
        f"weights file truncated or damaged: {file}: needs {len(whole)} bytes, has {len(whole) - 100}; fetch the file again")
    file.write_bytes(whole[:20])
    assert "truncated or not safetensors" in refusal(model_at(tmp_path))


def test_missing_shard_and_hostile_shard_name(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    index = tmp_path / "model.safetensors.index.json"
    shard = sorted(tmp_path.glob("model-*.safetensors"))[0]
    shard.rename(tmp_path / "away")
    assert refusal(model_at(tmp_path)) == f"weights file missing: {shard}; fetch the model again"
    index.write_text(json.dumps({"weight_map": {"w": "../x.safetensors"}}))
    assert "names a weights file outside the directory" in refusal(model_at(tmp_path))


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    assert "pytorch_model.bin is a pickle, which is never loaded" in refusal(model_at(tmp_path))


def test_vocabulary_larger_than_embedding(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    tokenizer = load_tokenizer(model_at(tmp_path / "m"), TokenizerConfig())
    check_vocabulary(tokenizer, load_model(model_at(tmp_path / "m"), FP32))
    highest = max(tokenizer.get_vocab().values())
    with pytest.raises(InputError, match=f"makes ids up to {highest} .* but the model has 96 embedding rows"):
        check_vocabulary(tokenizer, tiny_model("llama"))


@pytest.mark.parametrize(("unknown", "expected"), [(None, "<|im_end|>"), ("<|im_start|>", "<|im_start|>"), ("<|im_end|>", "<|im_end|>")])
def test_padding_token_is_one_of_the_tokenizers_own(tmp_path: Path, unknown: str | None, expected: str) -> None:
    """By hand: unknown token unless it is the end token, else the end token; the vocabulary keeps its size."""
    write_model(tmp_path)
    change_tokenizer(tmp_path, pad_token=None, unk_token=unknown)
    tokenizer = load_tokenizer(model_at(tmp_path), TokenizerConfig())
    assert tokenizer.pad_token == expected
    assert len(tokenizer) == tokenizer.backend_tokenizer.get_vocab_size(with_added_tokens=True)


@pytest.mark.parametrize("value", ["/etc/passwd", "../secret"])
def test_tokenizer_files_outside_the_directory(tmp_path: Path, value: str) -> None:
    write_model(tmp_path)
    change_tokenizer(tmp_path, vocab_file=value)
    with pytest.raises(InputError, match="vocab_file names a file outside the model directory"):
        load_tokenizer(model_at(tmp_path), TokenizerConfig())


@pytest.mark.parametrize("name", ["backend_tokenizer", "_tokenizer"])
def test_tokenizer_settings_that_name_parts_of_a_tokenizer(tmp_path: Path, name: str) -> None:
    """By hand: each is an object or a method of every tokenizer in transformers, and no setting of it."""
    write_model(tmp_path)
    change_tokenizer(tmp_path, **{name: "planted.Planted"})
    with pytest.raises(InputError) as refused:
        load_tokenizer(model_at(tmp_path), TokenizerConfig())
    assert str(refused.value) == (f"{tmp_path}/tokenizer_config.json: {name}: no setting, but a part of every tokenizer; "
                                  "the file is damaged or hostile: fetch the model again")


def test_tokenizer_settings_that_transformers_refuses(tmp_path: Path) -> None:
    """It does not let a file replace a method, and says so with an AttributeError."""
    write_model(tmp_path)
    change_tokenizer(tmp_path, apply_chat_template="planted.Planted")
    with pytest.raises(InputError, match="the tokenizer files cannot be read: apply_chat_template conflicts with the method"):
        load_tokenizer(model_at(tmp_path), TokenizerConfig())


def test_settings_that_no_tokenizer_has_are_let_pass(tmp_path: Path) -> None:
    """Vendors keep notes of their own there; and a token may be written out as an object."""
    write_model(tmp_path)
    before = load_tokenizer(model_at(tmp_path), TokenizerConfig())
    change_tokenizer(tmp_path, vendors_note="planted", eos_token={"content": "<|im_end|>", "__type": "AddedToken", "special": True})
    after = load_tokenizer(model_at(tmp_path), TokenizerConfig())
    assert after.get_vocab() == before.get_vocab() and after.eos_token == "<|im_end|>"


def test_no_tokenizer(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    with pytest.raises(InputError, match="has no tokenizer files"):
        load_tokenizer(model_at(tmp_path), TokenizerConfig())


@pytest.mark.parametrize(("family", "prefix", "linear", "experts"), [
    ("llama", "model.layers", "mlp.down_proj mlp.gate_proj mlp.up_proj self_attn.k_proj self_attn.o_proj self_attn.q_proj "
     "self_attn.v_proj", ""),
    ("gemma", "model.layers", "mlp.down_proj mlp.gate_proj mlp.up_proj self_attn.k_proj self_attn.o_proj self_attn.q_proj "
     "self_attn.v_proj", ""),
    ("qwen3_moe", "model.layers", "self_attn.k_proj self_attn.o_proj self_attn.q_proj self_attn.v_proj",
     "mlp.experts.down_proj mlp.experts.gate_up_proj"),
    ("gpt2", "transformer.h", "attn.c_attn attn.c_proj mlp.c_fc mlp.c_proj", ""),
])
def test_families(family: str, prefix: str, linear: str, experts: str) -> None:
    """By hand: what each architecture's modelling file contains."""
    model = tiny_model(family)
    layers = decoder_layers(model)
    assert (layers.prefix, len(layers.modules)) == (prefix, 2)
    assert sorted({kind(name).removeprefix(f"{prefix}.*.") for name in linear_layers(model)}) == linear.split()
    assert sorted({kind(name).removeprefix(f"{prefix}.*.") for name in fused_experts(model)}) == experts.split()


def change_tokenizer(directory: Path, **values: object) -> None:
    file = directory / "tokenizer_config.json"
    file.write_text(json.dumps({key: value for key, value in (json.loads(file.read_text()) | values).items() if value is not None}))


def test_directories_are_checked_without_torch(tmp_path: Path) -> None:
    """`tunewright check` looks into model and adapter directories and stays light."""
    program = ("import sys; from pathlib import Path; from tunewright.models.directory import check_directory;"
               "from tunewright.adapters import directory; check_directory(Path(sys.argv[1]));"
               "print([name for name in ('torch', 'transformers', 'peft', 'numpy') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", program, str(write_tiny(tmp_path))], capture_output=True, text=True,
                          timeout=60, check=True,
                          env={**os.environ, "PYTHONPATH": str(Path(tunewright.__file__).parents[1])})
    assert done.stdout == "[]\n"

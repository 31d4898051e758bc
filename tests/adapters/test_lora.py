"""LoRA and its variants against peft itself, and exact restoration of a trained state."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.models.tiny import FAMILIES, probe_logits, tiny_model, train_steps, write_tiny
from tunewright.adapters.lora import load_adapter
from tunewright.adapters.pissa import lora_layers, save_converted
from tunewright.adapters.trainable import make_trainable, resume_source, save_trained
from tunewright.config.model import ModelConfig, TokenizerConfig
from tunewright.config.optimization import PrecisionConfig
from tunewright.config.run import RunConfig
from tunewright.config.tuning import LoraConfig, TuningConfig
from tunewright.errors import InputError
from tunewright.models.load import load_model
from tunewright.models.tokenizer import load_tokenizer
from tunewright.selftest.tiny import write_model


def run_for(path: Path, *, kind: str = "lora", adapters: tuple[str, ...] = (), **lora: Any) -> RunConfig:
    return RunConfig(model=ModelConfig(model_name_or_path=str(path), adapter_name_or_path=adapters),
                     tuning=TuningConfig(finetuning_type=kind), lora=LoraConfig(**lora))


def started(run: RunConfig, checkpoint: Path | None = None) -> Any:
    return make_trainable(load_model(resume_source(run, checkpoint), run.precision), run, checkpoint=checkpoint)


def tokenizer_for(tmp_path: Path) -> Any:
    write_model(tmp_path / "tokenizer")
    return load_tokenizer(ModelConfig(model_name_or_path=str(tmp_path / "tokenizer")), TokenizerConfig())


def save(model: Any, directory: Path, tmp_path: Path) -> Path:
    save_trained(model, directory, tokenizer_for(tmp_path))
    return directory


def state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def trained_adapter(tmp_path: Path, run: RunConfig, name: str = "adapter") -> tuple[Any, Path]:
    model = started(run)
    train_steps(model, 3)
    return model, save(model, tmp_path / name, tmp_path)


ALL = {
    "llama": ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
    "qwen3": ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
    "gemma": ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
    "qwen3_moe": ["k_proj", "o_proj", "q_proj", "v_proj"],
    "gpt2": ["c_attn", "c_fc", "c_proj"],
}


@pytest.mark.parametrize("family", FAMILIES)
def test_all_means_every_linear_layer_but_the_head(tmp_path: Path, family: str) -> None:
    """By hand from the modelling files; trainable names are factors only; at the start the output is the base's."""
    write_tiny(tmp_path, family)
    model = started(run_for(tmp_path))
    config = model.peft_config["default"]
    assert sorted(config.target_modules) == ALL[family]
    assert sorted(config.target_parameters or ()) == (["experts.down_proj", "experts.gate_up_proj"] if family == "qwen3_moe" else [])
    assert (config.r, config.lora_alpha, config.fan_in_fan_out) == (8, 16, family == "gpt2")
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained and all(".lora_A.default.weight" in name or ".lora_B.default.weight" in name for name in trained)
    assert torch.equal(probe_logits(model), probe_logits(tiny_model(family)))


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_adapter_loads_in_plain_peft_and_in_ours_bit_by_bit(tmp_path: Path, family: str) -> None:
    """Oracle: peft on the model that transformers opens."""
    base = write_tiny(tmp_path / "base", family)
    model, directory = trained_adapter(tmp_path, run_for(base))
    live = probe_logits(model)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), directory)
    assert torch.equal(probe_logits(plain), live)
    assert not torch.equal(live, probe_logits(tiny_model(family)))
    assert json.loads((directory / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    assert_same(state(started(run_for(base), checkpoint=directory)), state(model))
    assert len({path.stat().st_mode for path in directory.iterdir()}) == 1
    assert sorted(path.suffix for path in directory.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".pkl")) == []


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True}, "biases": {"lora_bias": "all"},
    "own biases": {"lora_bias": "lora_only"}, "pissa": {"pissa_init": True, "pissa_iter": -1}, "pissa fast": {"pissa_init": True},
    "extra": {"additional_target": ("embed_tokens", "lm_head")}, "some": {"lora_target": ("q_proj", "v_proj")},
    "rslora pissa": {"pissa_init": True, "use_rslora": True}, "dora pissa": {"pissa_init": True, "use_dora": True},
    "embedding": {"lora_target": ("all", "embed_tokens")}, "embedding dora": {"lora_target": ("embed_tokens",), "use_dora": True},
    "regex": {"lora_target": (r"model\.layers\.1\..*_proj",)}, "dropout": {"lora_dropout": 0.1},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_restored_bit_by_bit(tmp_path: Path, variant: str) -> None:
    """Identity: all weights, frozen ones included (PiSSA's residual), of the resumed and of the interrupted run."""
    base = write_tiny(tmp_path / "base")
    run = run_for(base, **VARIANTS[variant])
    model, directory = trained_adapter(tmp_path, run)
    resumed = started(run, checkpoint=directory)
    assert_same(state(resumed), state(model))
    flags = [(name, parameter.requires_grad, parameter.dtype) for name, parameter in model.named_parameters()]
    assert [(name, parameter.requires_grad, parameter.dtype) for name, parameter in resumed.named_parameters()] == flags
    assert resumed.training
    again = save(resumed, tmp_path / "again", tmp_path)
    for file in directory.rglob("adapter_*"):
        assert (again / file.relative_to(directory)).read_bytes() == file.read_bytes()


def test_pissa_of_conv1d_is_restored_bit_by_bit(tmp_path: Path) -> None:
    """GPT-2 keeps its weights transposed."""
    base = write_tiny(tmp_path / "base", "gpt2")
    run = run_for(base, pissa_init=True)
    model, directory = trained_adapter(tmp_path, run)
    assert_same(state(started(run, checkpoint=directory)), state(model))


@pytest.mark.effect("lora_rank", "lora_alpha", "use_rslora")
@pytest.mark.parametrize(("rslora", "expected"), [(False, 32 / 4), (True, 32 / math.sqrt(4))])
def test_scale(tmp_path: Path, rslora: bool, expected: float) -> None:
    """By hand: alpha / r, and alpha / sqrt(r) for rsLoRA (Kalajdzievski 2023)."""
    write_tiny(tmp_path)
    model = started(run_for(tmp_path, lora_rank=4, lora_alpha=32, use_rslora=rslora))
    assert {layer.scaling["default"] for _, layer in lora_layers(model)} == {expected}


@pytest.mark.effect("use_dora")
def test_dora_output_is_magnitude_times_direction(tmp_path: Path) -> None:
    """Oracle: equation 5 of Liu et al. 2024 written out, W' = m (W + s B A) / ||W + s B A||, rows as outputs."""
    model, _ = trained_adapter(tmp_path, run_for(write_tiny(tmp_path / "base"), use_dora=True))
    model.eval()
    _, layer = next(lora_layers(model))
    moved = layer.weight + layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    magnitude = layer.lora_magnitude_vector["default"].weight
    whole = magnitude[:, None] * moved / moved.norm(dim=1, keepdim=True)
    x = torch.randn(5, layer.in_features)
    torch.testing.assert_close(layer(x), x @ whole.T, rtol=1e-5, atol=1e-5)


@pytest.mark.effect("pissa_init", "pissa_iter")
@pytest.mark.parametrize("steps", [-1, 4])
def test_pissa_starts_at_the_base_and_keeps_the_principal_part(tmp_path: Path, steps: int) -> None:
    """Identity: base output at the start, within the rounding of the decomposition. Oracle: torch's full SVD."""
    base = write_tiny(tmp_path / "base")
    model = started(run_for(base, pissa_init=True, pissa_iter=steps))
    torch.testing.assert_close(probe_logits(model), probe_logits(tiny_model("llama")), rtol=1e-5, atol=1e-5)
    name, layer = next(lora_layers(model))
    whole = tiny_model("llama").get_submodule(name).weight
    principal = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    left, values, right = torch.linalg.svd(whole)
    best = left[:, :8] @ torch.diag(values[:8]) @ right[:8]
    # The fast decomposition is nearly optimal (within 5 % here), the exact one optimal.
    assert (whole - principal).norm() <= (whole - best).norm() * (1.00001 if steps == -1 else 1.05)


@pytest.mark.parametrize("settings", [{"pissa_iter": -1}, {}, {"use_rslora": True}, {"lora_rank": 3, "lora_alpha": 5}])
def test_converted_pissa_is_a_plain_lora_of_the_original(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Identity: plain peft with the converted adapter on the untouched base gives the trained model's output."""
    base = write_tiny(tmp_path / "base")
    model, directory = trained_adapter(tmp_path, run_for(base, pissa_init=True, **settings))
    folder = save_converted(model, directory)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    torch.testing.assert_close(probe_logits(plain), probe_logits(model), rtol=1e-4, atol=1e-4)


def test_pissa_without_its_first_factors_is_refused(tmp_path: Path) -> None:
    base = write_tiny(tmp_path / "base")
    _, directory = trained_adapter(tmp_path, run_for(base, pissa_init=True))
    (directory / "pissa_initial" / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"lacks pissa_initial/adapter_model\.safetensors"):
        load_adapter(tiny_model("llama"), directory, trainable=False)


def test_the_start_is_a_function_of_the_seed(tmp_path: Path) -> None:
    """Whatever random numbers were drawn before; and none are taken from the caller's stream."""
    base = write_tiny(tmp_path / "base")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = started(run_for(base))
    untouched = make_trainable(tiny_model("llama"), run_for(base))
    torch.manual_seed(99)
    assert_same(state(one), state(started(run_for(base))))
    assert_same(state(one), state(untouched))
    torch.set_rng_state(before)
    model = tiny_model("llama")
    position = torch.get_rng_state()
    make_trainable(model, run_for(base))
    assert torch.equal(torch.get_rng_state(), position)


def test_adapters_stay_float32_over_bfloat16(tmp_path: Path) -> None:
    run = replace(run_for(write_tiny(tmp_path / "base")), precision=PrecisionConfig(pure_bf16=True))
    model, directory = trained_adapter(tmp_path, run)
    resumed = started(run, checkpoint=directory)
    for one in (model, resumed):
        assert {p.dtype for p in one.parameters() if p.requires_grad} == {torch.float32}
        assert {p.dtype for p in one.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert_same(state(resumed), state(model))


@pytest.mark.effect("create_new_adapter", "adapter_name_or_path")
def test_continue_merge_and_stack(tmp_path: Path) -> None:
    """Oracle: peft, loading and merging the same adapters by hand."""
    base = write_tiny(tmp_path / "base")
    first, a = trained_adapter(tmp_path, run_for(base), "a")
    continued = started(run_for(base, adapters=(str(a),)))
    assert_same(state(continued), state(first))
    second, b = trained_adapter(tmp_path, run_for(base, adapters=(str(a),), create_new_adapter=True, lora_rank=4), "b")
    on_a = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), a).merge_and_unload()
    on_both = PeftModel.from_pretrained(on_a, b)
    assert torch.equal(probe_logits(on_both), probe_logits(second))
    assert json.loads((b / "merged_adapters.json").read_text()) == {"merged_adapters": [str(a)]}
    both = run_for(base, adapters=(str(a), str(b)))
    assert_same(state(started(both)), state(second))
    assert_same(state(started(run_for(base, adapters=(str(b),)))), state(second))  # b knows that it stands on a
    third = started(run_for(base, adapters=(str(a), str(b)), create_new_adapter=True))
    assert torch.equal(probe_logits(third), probe_logits(on_both.merge_and_unload()))


@pytest.mark.effect("adapter_folder")
def test_adapter_folder(tmp_path: Path) -> None:
    base = write_tiny(tmp_path / "base")
    model, directory = trained_adapter(tmp_path, run_for(base), "run/inner")
    run = run_for(base, adapters=(str(directory.parent),))
    run = replace(run, model=replace(run.model, adapter_folder="inner"))
    assert_same(state(started(run)), state(model))
    with pytest.raises(InputError, match=r"is not an adapter: .* for instance with adapter_folder: inner"):
        started(run_for(base, adapters=(str(directory.parent),)))


@pytest.mark.effect("additional_target")
def test_tied_embedding_trained_apart_survives_the_merge(tmp_path: Path) -> None:
    """Identity: the merged model, saved and opened by transformers, equals the live one although the base ties its head. The
    embedding that was trained is another than the file's; the head, of which nothing was said, is not."""
    from tunewright.adapters.lora import unload_merged

    base = write_tiny(tmp_path / "base", "qwen3")
    model, _ = trained_adapter(tmp_path, run_for(base, additional_target=("embed_tokens",)))
    live = probe_logits(model)
    unload_merged(model).save_pretrained(tmp_path / "merged")
    merged, plain = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("merged", "base"))
    torch.testing.assert_close(probe_logits(merged), live, rtol=1e-4, atol=1e-4)
    assert not torch.equal(merged.get_input_embeddings().weight, plain.get_input_embeddings().weight)
    assert torch.equal(merged.get_output_embeddings().weight, plain.get_output_embeddings().weight)


@pytest.mark.parametrize(("lora", "message"), [
    ({"lora_target": ("(" * 3000,)}, f"lora_target: '{'(' * 3000}' is neither a module of this model nor a valid regular expression "
     "(maximum recursion depth exceeded"),
    ({"lora_target": ("[",)}, "lora_target: '[' is neither a module of this model nor a valid regular expression "
     "(unterminated character set at position 0); use names such as down_proj, embed_tokens, gate_proj, k_proj, lm_head, o_proj, "
     "q_proj, up_proj ..."),
    ({"lora_target": ("q_prj",)}, "lora_target: 'q_prj' matches no module of this model; use q_proj, v_proj, o_proj"),
    ({"additional_target": ("nope",)}, "additional_target: 'nope' matches no module of this model; use "),
    ({"lora_rank": 60000}, "lora_rank is 60000, more than the widest linear layer of the model (48); use a rank well below it, "
     "for instance 8 to 64"),
    ({"pissa_convert": True}, "pissa_convert without pissa_init converts nothing; set pissa_init: true"),
    ({"pissa_convert": True, "pissa_init": True, "use_dora": True},
     "pissa_convert cannot express a DoRA adapter as an ordinary LoRA adapter; leave out use_dora or pissa_convert"),
])
def test_settings_that_cannot_work(tmp_path: Path, lora: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        make_trainable(tiny_model("llama"), run_for(tmp_path, **lora))
    assert str(caught.value).startswith(message)


def test_the_head_is_spelled_apart_when_its_name_is_shared() -> None:
    """By hand: `dense` also ends the head's name, so the layers' are given in full."""
    from tunewright.adapters.targets import shortest

    everything = ["head.dense", "layers.0.dense", "layers.0.query", "layers.1.dense", "layers.1.query"]
    assert shortest(everything[1:], everything) == ["layers.0.dense", "layers.1.dense", "query"]


def test_experts_left_out_are_visible(tmp_path: Path) -> None:
    """Dropout cannot be put on fused experts: they stay frozen, and the report says so."""
    from tunewright.adapters.coverage import coverage

    write_tiny(tmp_path, "qwen3_moe")
    model = started(run_for(tmp_path, lora_dropout=0.1))
    assert not model.peft_config["default"].target_parameters
    frozen = coverage(model).lines()[-1]
    assert "mlp.experts.gate_up_proj (8,192)" in frozen and "mlp.experts.down_proj (4,096)" in frozen


def wrong_base(directory: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_adapter(tiny_model("gpt2"), directory, trainable=False)
    return str(caught.value)


def test_adapters_of_other_models(tmp_path: Path) -> None:
    base = write_tiny(tmp_path / "base")
    _, directory = trained_adapter(tmp_path, run_for(base))
    assert wrong_base(directory).startswith(
        f"adapter {directory} was made for another model ({base}): it adapts model.layers.0.")
    wide = tiny_model("llama")
    wide.model.layers[0].mlp.down_proj = torch.nn.Linear(40, 32)
    with pytest.raises(InputError, match=r"was made for another model .*down_proj has 48 inputs there, 32 x 40 weights here"):
        load_adapter(wide, directory, trainable=False)


@pytest.mark.parametrize(("changes", "expected"), [
    ({"r": 4}, "adapter_config.json says rank 4, but .* has rank 8"),
    ({"peft_type": "LOHA"}, "peft_type is 'LOHA', only LORA can be loaded"),
    ({"megatron_config": {"x": 1}, "megatron_core": "evil"}, "the adapter uses megatron_config, which is not supported"),
    ({"layer_replication": [[0, 2]]}, "the adapter uses layer_replication"),
    ({"init_lora_weights": "olora"}, "changes the base weights"),
])
def test_adapters_that_cannot_be_loaded(tmp_path: Path, changes: dict[str, object], expected: str) -> None:
    base = write_tiny(tmp_path / "base")
    _, directory = trained_adapter(tmp_path, run_for(base))
    file = directory / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(InputError, match=expected):
        load_adapter(tiny_model("llama"), directory, trainable=False)


def test_adapter_directories_that_are_none(tmp_path: Path) -> None:
    base = write_tiny(tmp_path / "base")
    _, directory = trained_adapter(tmp_path, run_for(base))
    with pytest.raises(InputError, match="adapter_name_or_path: path not found"):
        load_adapter(tiny_model("llama"), tmp_path / "nope", trainable=False)
    with pytest.raises(InputError, match=r"is not an adapter: it has no adapter_config\.json"):
        load_adapter(tiny_model("llama"), base, trainable=False)
    weights = directory / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    with pytest.raises(InputError, match=f"needs {len(whole)} bytes, has {len(whole) - 8}"):
        load_adapter(tiny_model("llama"), directory, trainable=False)
    weights.rename(directory / "adapter_model.bin")
    with pytest.raises(InputError, match="pickled adapters are never loaded"):
        load_adapter(tiny_model("llama"), directory, trainable=False)


def test_a_foreign_regular_expression_is_never_run(tmp_path: Path) -> None:
    """`(.*.*)*x` on module names would take for ever; the targets come from the tensors."""
    base = write_tiny(tmp_path / "base")
    model, directory = trained_adapter(tmp_path, run_for(base))
    file = directory / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"target_modules": "(.*.*)*x"}))
    assert torch.equal(probe_logits(load_adapter(tiny_model("llama"), directory, trainable=False)), probe_logits(model))

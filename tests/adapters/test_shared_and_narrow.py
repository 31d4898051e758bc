"""Adapters on weights that are shared, narrow, zero, or stretched in their positions. Oracles: plain transformers and peft, identity."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.adapters.test_lora import assert_same, run_for, started, state, trained_adapter
from tests.effects.engine_runs import run
from tests.models.tiny import probe_logits, tiny_model, train_steps, write_tiny
from tunewright.adapters.lora import load_adapter, unload_merged
from tunewright.adapters.pissa import lora_layers, save_converted
from tunewright.adapters.positions import with_positions
from tunewright.adapters.trainable import demand_mergeable, make_trainable
from tunewright.config.inference import ExportConfig
from tunewright.config.model import ModelConfig
from tunewright.config.optimization import PrecisionConfig
from tunewright.config.run import RunConfig
from tunewright.dialects.read import read_config
from tunewright.errors import InputError
from tunewright.export.merge import export
from tunewright.inference.opening import open_model
from tunewright.models.families import vocabulary_rows
from tunewright.models.load import load_model
from tunewright.selftest.workspace import Workspace


@pytest.mark.parametrize("settings", [{"pissa_iter": -1}, {}, {"use_dora": True}])
def test_pissa_over_bfloat16_is_restored_bit_by_bit(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Identity, residual included: peft rounds the factors after taking their product out, which left the residual unknown."""
    base = write_tiny(tmp_path / "base")
    narrow = replace(run_for(base, pissa_init=True, **settings), precision=PrecisionConfig(pure_bf16=True))
    model, directory = trained_adapter(tmp_path, narrow)
    assert {tensor.dtype for tensor in load_file(directory / "adapter_model.safetensors").values()} == {torch.float32}
    assert_same(state(started(narrow, checkpoint=directory)), state(model))


def test_pissa_over_bfloat16_starts_at_the_base(tmp_path: Path) -> None:
    """Residual and product of the factors add up to the weight, but for the residual's own rounding (8 bits of mantissa)."""
    run_ = replace(run_for(write_tiny(tmp_path), pissa_init=True, pissa_iter=-1), precision=PrecisionConfig(pure_bf16=True))
    weights = load_model(run_.model, run_.precision).state_dict()
    for name, layer in lora_layers(started(run_)):
        rest = layer.get_base_layer().weight.float()
        whole = rest + layer.get_delta_weight("default").float()
        assert bool(((whole - weights[f"{name}.weight"].float()).abs() <= rest.abs() * 2**-8 + 1e-6).all())


def test_converted_pissa_with_an_adapted_embedding_loads_in_plain_peft(tmp_path: Path) -> None:
    base = write_tiny(tmp_path / "base")
    model, directory = trained_adapter(tmp_path, run_for(base, pissa_init=True, lora_target=("all", "embed_tokens")))
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), save_converted(model, directory))
    torch.testing.assert_close(probe_logits(plain), probe_logits(model), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("targets", [("lm_head",), ("embed_tokens",), ("embed_tokens", "lm_head"), ("all", "lm_head")])
def test_a_tied_weight_is_merged_into_the_layer_that_was_adapted_only(tmp_path: Path, targets: tuple[str, ...]) -> None:
    """The embedding and the head of this model are one tensor; merged, saved and opened by transformers it answers as the live one."""
    base = write_tiny(tmp_path / "base", "qwen3")
    model, directory = trained_adapter(tmp_path, run_for(base, lora_target=targets))
    assert vocabulary_rows(model) == vocabulary_rows(tiny_model("qwen3")) == 96
    live = probe_logits(model)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), directory)
    assert torch.equal(probe_logits(plain), live)
    unload_merged(load_adapter(load_model(ModelConfig(model_name_or_path=str(base)), PrecisionConfig()), directory, trainable=False)
                  ).save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(probe_logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), live, rtol=1e-4, atol=1e-4)


def test_a_tie_that_no_adapter_touches_stays(tmp_path: Path) -> None:
    model, _ = trained_adapter(tmp_path, run_for(write_tiny(tmp_path / "base", "qwen3")))
    merged = unload_merged(model)
    assert merged.config.tie_word_embeddings and merged.lm_head.weight is merged.model.embed_tokens.weight  # type: ignore[union-attr]


def test_pissa_leaves_a_tied_head_alone(tmp_path: Path) -> None:
    """Taken out of the head, the principal part would be missing in the embedding. An untied head is taken apart like any layer."""
    with pytest.raises(InputError, match="lora_target: pissa_init would take the head apart, and with it the embedding"):
        make_trainable(tiny_model("qwen3"), run_for(tmp_path, pissa_init=True, lora_target=("all", "lm_head")))
    untied = make_trainable(tiny_model("llama"), run_for(tmp_path, pissa_init=True, lora_target=("lm_head",)))
    torch.testing.assert_close(probe_logits(untied), probe_logits(tiny_model("llama")), rtol=1e-4, atol=1e-4)


def test_dora_of_weights_that_are_zero_is_refused(tmp_path: Path) -> None:
    """The direction of a row of zeros is 0 / 0, and the first loss would not be finite."""
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_parameter("lm_head.weight")[3:5] = 0
    with pytest.raises(InputError, match="use_dora: 2 of the 96 outputs of lm_head have weights of zero, which have no direction"):
        make_trainable(model, run_for(tmp_path, use_dora=True, lora_target=("lm_head",)))


def test_biases_that_are_not_there_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Llama has none, GPT-2 has."""
    with caplog.at_level(logging.WARNING):
        make_trainable(tiny_model("gpt2"), run_for(tmp_path, lora_bias="all"))
        assert "lora_bias" not in caplog.text
        make_trainable(tiny_model("llama"), run_for(tmp_path, lora_bias="all"))
    assert "lora_bias: all trains nothing, because there are no such biases in this model" in caplog.text


def test_a_base_without_floats_is_refused_before_a_run_that_would_merge(tmp_path: Path) -> None:
    model = tiny_model("llama")
    merging = replace(run_for(tmp_path), export=ExportConfig(merge_lora_and_save=True))
    demand_mergeable(model, merging)
    model.is_quantized = True  # type: ignore[attr-defined]
    demand_mergeable(model, run_for(tmp_path))
    with pytest.raises(InputError, match="merge_lora_and_save: the base is quantised in its files"):
        demand_mergeable(model, merging)


def recorded(tmp_path: Path, method: object, length: object) -> RunConfig:
    """An adapter whose record of positions says this."""
    base = write_tiny(tmp_path / "base")
    _, directory = trained_adapter(tmp_path, run_for(base))
    (directory / "adapter_positions.json").write_text(json.dumps({"rope_scaling": method, "cutoff_len": length}))
    return run_for(base, adapters=(str(directory),))


@pytest.mark.parametrize(("method", "length"), [("nope", 300), ("yarn", 0), ("yarn", "300"), ("yarn", True), (None, 300), ("yarn", 2**40)])
def test_a_strange_record_of_positions_is_refused(tmp_path: Path, method: object, length: object) -> None:
    with pytest.raises(InputError, match=r"adapter_positions\.json: rope_scaling is "):
        with_positions(recorded(tmp_path, method, length).model, 64)


def test_what_the_user_says_of_positions_wins(tmp_path: Path) -> None:
    model = recorded(tmp_path, "yarn", 300).model
    assert with_positions(model, 64) == (replace(model, rope_scaling="yarn"), 300)
    asked = replace(model, rope_scaling="linear")
    assert with_positions(asked, 64) == (asked, 64)


def logits_of(model: Any) -> torch.Tensor:
    """Logits of a row longer than the tiny model's own context."""
    ids = torch.randint(3, 300, (1, 600), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(input_ids=ids).logits


@pytest.mark.slow
@pytest.mark.parametrize("method", ["linear", "yarn"])
def test_an_adapter_remembers_the_positions_it_was_trained_on(tmp_path: Path, method: str) -> None:
    """The run's directory, opened, continued and exported without a word about positions: the base is the stretched one each time.

    Oracle: transformers and peft, told of the stretch by hand."""
    workspace = Workspace.make(tmp_path)
    settings = {"max_steps": 3, "save_strategy": "no"}
    run(workspace, tmp_path / "a", rope_scaling=method, cutoff_len=1200, **settings)
    base = AutoModelForCausalLM.from_pretrained(workspace.path / "model")
    rotary = {**base.config.rope_parameters, "rope_type": method, "factor": 3.0}
    more = {"original_max_position_embeddings": 512} if method == "yarn" else {}
    stretched = AutoModelForCausalLM.from_pretrained(
        workspace.path / "model", rope_parameters={**rotary, **more}, max_position_embeddings=1536)
    expected = logits_of(PeftModel.from_pretrained(stretched, tmp_path / "a").eval())
    assert not torch.allclose(expected, logits_of(PeftModel.from_pretrained(base, tmp_path / "a").eval()), atol=1e-3)
    opened = open_model(read_config([f"model_name_or_path={tmp_path / 'a'}"], purpose="chat").config).model
    torch.testing.assert_close(logits_of(opened), expected, rtol=1e-5, atol=1e-5)
    export(read_config([f"model_name_or_path={tmp_path / 'a'}", f"export_dir={tmp_path / 'm'}"], purpose="export").config)
    torch.testing.assert_close(logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "m")), expected, rtol=1e-4, atol=1e-4)
    run(workspace, tmp_path / "b", adapter_name_or_path=tmp_path / "a", **settings)
    assert json.loads((tmp_path / "b" / "adapter_positions.json").read_text()) == {"rope_scaling": method, "cutoff_len": 1200}
    run(workspace, tmp_path / "c", **settings)
    assert not (tmp_path / "c" / "adapter_positions.json").exists()


@pytest.mark.slow
def test_a_run_adapts_the_embedding(tmp_path: Path) -> None:
    """The whole way: a run looks for the number of the embedding's rows, whatever wraps it."""
    run(Workspace.make(tmp_path), tmp_path / "a", lora_target="q_proj,embed_tokens", max_steps=2, save_strategy="no")
    assert any("lora_embedding_A" in name for name in load_file(tmp_path / "a" / "adapter_model.safetensors"))


def test_training_still_moves_a_pissa_adapter(tmp_path: Path) -> None:
    """Control of the comparisons above: three steps change the factors."""
    model = started(run_for(write_tiny(tmp_path), pissa_init=True))
    before = state(model)
    train_steps(model, 3)
    assert any(not torch.equal(before[name], tensor) for name, tensor in state(model).items() if ".lora_A." in name)

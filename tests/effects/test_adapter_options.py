"""Options of adapters: GPT-2's transposed layers, and pictures of what an adapter adds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.tiny import tiny_model, train_steps, write_tiny
from tunewright.adapters.trainable import make_trainable
from tunewright.adapters.updates import CELLS, adapter_updates, block_means
from tunewright.commands.preflight import read_ready
from tunewright.commands.train import train
from tunewright.dialects.read import read_config
from tunewright.errors import InputError
from tunewright.selftest.workspace import Workspace


@pytest.mark.effect("lora_fan_in_fan_out")
def test_transposed_layers(tmp_path: Path) -> None:
    """GPT-2 keeps weights as [in, out]: adapters fit with and without the word, and peft is told. Llama has no such layer."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    for word in ("false", "true"):
        words = ["--finetuning_type=lora", "--lora_target=c_attn", f"--lora_fan_in_fan_out={word}"]
        run = read_config(words, dialect="cli_reference").config
        model = make_trainable(tiny_model("gpt2"), run)
        train_steps(model, 3)
        model.eval().save_pretrained(tmp_path / word)
        assert json.loads((tmp_path / word / "adapter_config.json").read_text())["fan_in_fan_out"] is True
        base = AutoModelForCausalLM.from_pretrained(write_tiny(tmp_path / "gpt2", "gpt2"))
        merged = PeftModel.from_pretrained(base, tmp_path / word).merge_and_unload()
        ids = torch.arange(3, 12)[None]
        with torch.no_grad():
            torch.testing.assert_close(merged(input_ids=ids).logits, model(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
    run = read_config(["lora_fan_in_fan_out=true"]).config
    with pytest.raises(InputError, match=r"lora_fan_in_fan_out: no layer of this model keeps its weights as \[in, out\]"):
        make_trainable(tiny_model("llama"), run)
    make_trainable(tiny_model("llama"), read_config([]).config)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("rslora", [False, True])
def test_updates_are_scaling_times_b_times_a(family: str, rslora: bool) -> None:
    """Oracle: the product by hand, from the tensors of the adapter."""
    run = read_config(["lora_rank=4", "lora_alpha=12", f"use_rslora={str(rslora).lower()}"]).config
    model = make_trainable(tiny_model(family), run)
    train_steps(model, 3)
    tensors = {name: parameter.detach().double() for name, parameter in model.named_parameters()}
    scaling = 12 / (2 if rslora else 4)
    found = dict(adapter_updates(model))
    assert len(found) == sum("lora_A" in name for name in tensors)
    for name, values in found.items():
        a, b = (tensors[f"base_model.model.{name}.lora_{which}.default.weight"] for which in "AB")
        expected = (scaling * b @ a).abs()
        expected = expected.T if family == "gpt2" else expected
        shape = tuple(min(size, CELLS) for size in expected.shape)
        assert values.shape == shape and values.max() > 0
        np.testing.assert_allclose(values, expected.numpy() if shape == expected.shape else values, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("shape", [(3, 5), (300, 7), (129, 1000)])
def test_block_means(shape: tuple[int, int]) -> None:
    """Oracle: a loop over the blocks, whose borders are floor(i * size / cells)."""
    values = np.random.default_rng(0).random(shape)
    found = block_means(values)
    rows, columns = (min(size, CELLS) for size in shape)
    assert found.shape == (rows, columns)
    for row, column in ((0, 0), (rows - 1, columns - 1), (rows // 2, columns // 3)):
        block = values[row * shape[0] // rows:(row + 1) * shape[0] // rows, column * shape[1] // columns:(column + 1) * shape[1] // columns]
        assert found[row, column] == pytest.approx(block.mean())


@pytest.mark.slow
@pytest.mark.effect("plot_lora_matrix")
def test_a_run_draws_its_adapter(tmp_path: Path) -> None:
    """One picture for each target, and none unless asked."""
    workspace = Workspace.make(tmp_path / "work")
    for asked in (False, True):
        settings = workspace.settings(tmp_path / str(asked), max_steps=2, lora_target="q_proj,down_proj", plot_lora_matrix=asked)
        train(read_ready([f"{name}={value}" for name, value in settings.items()], "train").config)
    assert not list((tmp_path / "False").glob("*.png"))
    pictures = sorted((tmp_path / "True").glob("*.png"))
    assert [path.name for path in pictures] == ["lora_down_proj.png", "lora_q_proj.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)

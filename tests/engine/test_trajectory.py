"""Sixty steps beside plain transformers Trainer + peft: the same loss, gradient norm and rate at every step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tunewright.commands.train import train
from tunewright.dialects.read import read_config
from tunewright.selftest.tiny import write_model

pytestmark = pytest.mark.slow
STEPS, ROWS, TOLERANCE = 60, 4, 1e-4
COMMON = {"learning_rate": 1e-3, "lr_scheduler_type": "linear", "warmup_steps": 6, "weight_decay": 0.01, "max_grad_norm": 1.0,
          "per_device_train_batch_size": ROWS, "max_steps": STEPS, "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, an adapter whose B is not zero, and ragged rows of random tokens, most of them from a few, half of them with a label."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    path = tmp_path_factory.mktemp("trajectory")
    base = AutoModelForCausalLM.from_pretrained(write_model(path / "model"), dtype=torch.float32)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        adapted = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=names, task_type="CAUSAL_LM"))
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.05)
    adapted.save_pretrained(path / "adapter")
    draw = np.random.default_rng(3)
    with (path / "rows.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(2 * STEPS * ROWS):
            ids = (3 + 377 * draw.random(int(draw.lognormal(3, 0.8)) + 2) ** 6).astype(int).tolist()
            labels = [token if place and draw.random() < 0.5 else -100 for place, token in enumerate(ids)]
            file.write(json.dumps({"input_ids": ids, "labels": [*labels[:-1], ids[-1]]}) + "\n")
    return path


def rows(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in found]


def plain(folder: Path, output: Path, *, lora: bool, accumulation: int) -> list[dict[str, float]]:
    """The log of transformers' Trainer, on the rows in their order."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    trained = PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True) if lora else model
    arguments = TrainingArguments(
        output_dir=str(output), report_to="none", use_cpu=True, train_sampling_strategy="sequential", optim="adamw_torch_fused",
        gradient_accumulation_steps=accumulation, **COMMON)
    collator = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(folder / "model"), padding="longest")
    trainer = Trainer(trained, arguments, collator, rows(folder))
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def ours(folder: Path, output: Path, *, lora: bool, accumulation: int, **changes: Any) -> list[dict[str, float]]:
    """Our log, with whatever fast paths are the default."""
    tuning = {"finetuning_type": "lora", "adapter_name_or_path": folder / "adapter"} if lora else {"finetuning_type": "full"}
    settings = {
        **COMMON, **tuning, "model_name_or_path": folder / "model", "dataset": folder / "rows.jsonl", "output_dir": output,
        "data_cache_dir": "none", "disable_shuffling": True, "optim": "adamw_torch_fused", "use_cpu": True, "plot_loss": False,
        "gradient_accumulation_steps": accumulation, **changes}
    words = [f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in settings.items()]
    train(read_config(words, purpose="train").resolve().config)
    history = json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return [entry for entry in history if "loss" in entry]


@pytest.mark.parametrize(("lora", "accumulation"), [(True, 1), (False, 1), (False, 2)])
def test_sixty_steps_equal_those_of_plain_trainer(folder: Path, tmp_path: Path, lora: bool, accumulation: int) -> None:
    """Oracle: transformers Trainer + peft on the same rows in the same batches, which it pads. The rate is equal to the last digit;
    losses and norms are float32 sums in another order, and sixty steps of Adam make more of each difference."""
    with torch.random.fork_rng():
        expected = plain(folder, tmp_path / "plain", lora=lora, accumulation=accumulation)
        found = ours(folder, tmp_path / "ours", lora=lora, accumulation=accumulation)
    assert len(found) == len(expected) == STEPS
    assert expected[0]["loss"] - expected[-1]["loss"] > 0.005, "the steps change the model"
    for name, tolerance in (("loss", TOLERANCE), ("grad_norm", 10 * TOLERANCE), ("learning_rate", 1e-12)):
        assert [entry[name] for entry in found] == pytest.approx([entry[name] for entry in expected], abs=tolerance), name

"""The SFT configuration in JSON (document 002): what its values mean. The oracle is the document, whose sample values are its defaults, and
for its contradictions the specification's semantics, sections 2 and 3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.dialects import samples
from tunewright.config.table import values
from tunewright.dialects.read import Examined, examine


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def look(written: dict[str, Any], *arguments: str) -> Examined:
    Path("c.json").write_text(json.dumps(written))
    return examine(["c.json", *arguments], dialect="sft_json")


DEFAULTS = {
    "output_dir": "output/qwen1.5-7b-sft-lora", "model_name_or_path": "modles/Qwen", "dataset_dir": "data",
    "dataset": ("aspcoder_train.csv",), "template": "qwen", "finetuning_type": "lora", "num_train_epochs": 1.0,
    "per_device_train_batch_size": 1, "gradient_accumulation_steps": 16, "learning_rate": 2e-4, "cutoff_len": 1024, "logging_steps": 100.0,
    "save_steps": 100.0, "save_total_limit": 1, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 100, "lora_rank": 64,
    "lora_alpha": 16.0, "lora_dropout": 0.05, "gradient_checkpointing": True, "disable_tqdm": False, "optim": "paged_adamw_32bit",
    "seed": 42,
    "fp16": True, "report_to": ("tensorboard",), "dataloader_num_workers": 0, "save_strategy": "steps", "weight_decay": 0.0,
    "max_grad_norm": 0.3, "quantization_bit": None, "full_determinism": True}


def test_the_sample_says_what_is_meant_without_it() -> None:
    """Every value of the sample is a default: nothing written is everything written."""
    Path("c.json").write_text(samples.SFT_JSON)
    written = examine(["c.json"]).reading
    assert written.dialect == "sft_json" and len(json.loads(samples.SFT_JSON)) == 30
    current = values(written.config)
    assert {field: current[field] for field in DEFAULTS} == DEFAULTS
    assert values(look({}).reading.config) == current


MEANINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"train_mode": "lora"}, {"finetuning_type": "lora", "quantization_bit": None}),
    ({"train_mode": "qlora"}, {"finetuning_type": "lora", "quantization_bit": 4, "double_quantization": True, "quantization_type": "nf4"}),
    ({"train_mode": "full"}, {"finetuning_type": "full", "quantization_bit": None}),
    ({"train_file_path": "corpus", "train_file_name": "a.csv"}, {"dataset_dir": "corpus", "dataset": ("a.csv",)}),
    ({"template_name": "qwen2"}, {"template": "qwen2"}),
    ({"template_name": "qwen3_moe"}, {"template": "qwen3"}),
    ({"template_name": "mixtral"}, {"template": "mistral"}),
    ({"template_name": "chatglm"}, {"template": "chatglm3"}),
    ({"report_to": "console"}, {"report_to": ("console",)}),
    ({"report_to": "none"}, {"report_to": ()}),
    ({"report_to": "all"}, {"report_to": ("tensorboard",)}),
    ({"report_to": "console,tensorboard"}, {"report_to": ("console", "tensorboard")}),
    ({"seed": 7}, {"seed": 7, "full_determinism": True}),
    ({"optim": "adamw_hf", "train_mode": "full"}, {"optim": "adamw_torch"}),
    ({"save_strategy": "epoch"}, {"save_strategy": "epoch"}),
    ({"num_train_epochs": 0.5}, {"num_train_epochs": 0.5}),
]


@pytest.mark.parametrize(("written", "meaning"), MEANINGS, ids=[json.dumps(written) for written, _ in MEANINGS])
def test_meaning(written: dict[str, Any], meaning: dict[str, Any]) -> None:
    """The written settings give these values, without a problem."""
    examined = look(written)
    current = values(examined.reading.config)
    assert [one.line() for one in examined.problems] == []
    assert {field: current[field] for field in meaning} == meaning


def test_the_bits_of_qlora_come_from_its_mode() -> None:
    """`explain` says from where; our own name on the command line has the last word."""
    origins = look({"train_mode": "qlora"}).reading.origins
    assert origins["quantization_bit"].describe() == origins["finetuning_type"].describe() == "c.json:1 (train_mode)"
    assert values(look({"train_mode": "qlora"}, "--quantization_bit", "8").reading.config)["quantization_bit"] == 8


PROBLEMS: list[tuple[dict[str, Any], str]] = [
    ({"train_mode": "qloar"}, "c.json:1: train_mode (our finetuning_type): 'qloar' is not one of "),
    ({"save_steps": 0.5}, "c.json:1: save_steps: 0.5 is a fraction of the run, which this vocabulary does not have; write a whole number "
    "of "),
    ({"logging_steps": 0.1}, "c.json:1: logging_steps: 0.1 is a fraction of the run, which this vocabulary does not have; write a whole "),
    ({"lora_alpha": None}, "c.json:1: lora_alpha: null has no meaning in this vocabulary; write a number, or leave it out for the default"),
    ({"bf16": True}, "c.json:1: bf16: is a name of the native vocabulary, not of sft_json, which has none for it; give it on the command "),
]


@pytest.mark.parametrize(("written", "report"), PROBLEMS, ids=[json.dumps(written) for written, _ in PROBLEMS])
def test_what_is_refused(written: dict[str, Any], report: str) -> None:
    """One problem, at its place."""
    found = [one.line() for one in look(written).problems]
    assert len(found) == 1 and found[0].startswith(report)

"""The QLoRA training script (document 000): what its values mean. The oracle is the document, and for what it leaves open the
specification's semantics, section 2."""

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
    return examine(["c.json", *arguments], dialect="qlora_script")


DEFAULTS = {
    "model_name_or_path": "./chatglm3-6b-base", "dataset": ("formatted_samples.json",), "output_dir": "./trained_model",
    "finetuning_type": "lora", "optim": "paged_adamw_8bit", "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1,
    "num_train_epochs": 5.0, "weight_decay": 0.0, "learning_rate": 1e-4, "max_grad_norm": 0.3, "gradient_checkpointing": True,
    "do_train": True,
    "lr_scheduler_type": "cosine", "warmup_ratio": 0.03, "logging_steps": 1.0, "group_by_length": True, "save_strategy": "epoch",
    "save_total_limit": 3, "fp16": False, "trust_remote_code": True, "compute_dtype": "float16", "cutoff_len": 4096,
    "quantization_bit": 4, "double_quantization": True, "quantization_type": "nf4", "lora_rank": 64,
    "lora_alpha": 16.0, "lora_dropout": 0.05, "lora_target": ("all",), "eval_strategy": "no", "do_eval": False}


def test_the_defaults_of_the_document() -> None:
    """34 names; written out they mean what is meant without them. Nothing is evaluated, as the document names no data for it."""
    Path("c.yaml").write_text(samples.QLORA_SCRIPT)
    written = examine(["c.yaml"]).reading
    assert written.dialect == "qlora_script" and len(samples.QLORA_SCRIPT.splitlines()) == 34
    current = values(written.config)
    assert {field: current[field] for field in DEFAULTS} == DEFAULTS
    assert values(look({}).reading.config) == current


MEANINGS: list[tuple[dict[str, Any], list[str], dict[str, Any]]] = [
    ({}, ["val_size=0.1"], {"eval_strategy": "epoch", "do_eval": True}),
    ({}, ["--eval_dataset", "e.json"], {"eval_strategy": "epoch", "do_eval": True}),
    ({"evaluation_strategy": "steps"}, ["--val_size", "8"], {"eval_strategy": "steps"}),
    ({"evaluation_strategy": "no", "do_eval": False}, ["--val_size", "8"], {"eval_strategy": "no", "do_eval": False}),
    ({"evaluation_strategy": "epoch", "do_eval": True}, [], {"eval_strategy": "no", "do_eval": False}),
    ({"evaluation_strategy": "no"}, [], {"eval_strategy": "no"}),
    ({"training_recipe": "full"}, [], {"finetuning_type": "full", "quantization_bit": None}),
    ({"training_recipe": "lora"}, [], {"finetuning_type": "lora", "quantization_bit": 4}),
    ({"training_recipe": "lora", "bits": 8}, [], {"quantization_bit": 8}),
    ({"training_recipe": "lora", "bits": None}, [], {"quantization_bit": None}),
    ({"quant_type": "fp4", "double_quant": False}, [], {"quantization_type": "fp4", "double_quantization": False}),
    ({"compute_dtype": "torch.bfloat16"}, [], {"compute_dtype": "bfloat16"}),
    ({"n_epochs": 1.5}, [], {"num_train_epochs": 1.5}),
    ({"save_strategy": "steps"}, ["--save_steps", "0.5"], {"save_strategy": "steps", "save_steps": 0.5}),
]


@pytest.mark.parametrize(("written", "arguments", "meaning"), MEANINGS, ids=[json.dumps(one[0]) + " ".join(one[1]) for one in MEANINGS])
def test_meaning(written: dict[str, Any], arguments: list[str], meaning: dict[str, Any]) -> None:
    """The written settings give these values, without a problem."""
    examined = look(written, *arguments)
    current = values(examined.reading.config)
    assert [one.line() for one in examined.problems] == []
    assert {field: current[field] for field in meaning} == meaning


IN_VAIN = ("there is no evaluation data, for which qlora_script has no name; nothing is evaluated unless val_size or eval_dataset is "
"given on "
           "the command line")

NOTES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    ({}, [], []),
    ({"evaluation_strategy": "epoch", "do_eval": True}, [], [f"c.json:1: evaluation_strategy: {IN_VAIN}", f"c.json:1: do_eval: {IN_VAIN}"]),
    ({"evaluation_strategy": "epoch", "do_eval": True}, ["--val_size", "0.1"], []),
    ({"training_recipe": "full"}, [], ["bits is 4 by default in qlora_script, but quantised weights cannot be trained: the base model is "
    "not "
                                       "quantised"]),
    ({"training_recipe": "full", "bits": None}, [], []),
    ({"evaluation_strategy": "no"}, [], []),
]


@pytest.mark.parametrize(("written", "arguments", "notes"), NOTES, ids=[json.dumps(one[0]) + " ".join(one[1]) for one in NOTES])
def test_what_is_worth_telling(written: dict[str, Any], arguments: list[str], notes: list[str]) -> None:
    """The whole of the notes; evaluation_strategy is live in this document."""
    assert list(look(written, *arguments).reading.notes) == notes


def test_full_training_of_quantised_weights_is_refused_where_it_is_written() -> None:
    """Understood as unquantised only where nobody asked for bits."""
    def refusals(written: dict[str, Any]) -> list[str]:
        Path("c.json").write_text(json.dumps(written))
        return [one.line() for one in examine(["c.json"], dialect="qlora_script", purpose="train").problems
                if one.rule == "tuning-quantised-weights"]

    found = refusals({"training_recipe": "full", "bits": 4})
    assert len(found) == 1 and found[0].startswith("c.json:1: bits: ")
    assert refusals({"training_recipe": "full"}) == []


PROBLEMS: list[tuple[dict[str, Any], str]] = [
    ({"evaluation_strategy": "sometimes"}, "c.json:1: evaluation_strategy (our eval_strategy): 'sometimes' is not one of no, steps, epoch"),
    ({"logging_steps": 0.5}, "c.json:1: logging_steps: 0.5 is a fraction of the run, which this vocabulary does not have; write a whole "
    "number "
     "of steps"),
    ({"lora_alpha": None}, "c.json:1: lora_alpha: null has no meaning in this vocabulary; write a number, or leave it out for the default"),
    ({"use_auth_token": "hf_x"}, "c.json:1: use_auth_token: a secret does not belong in a configuration or on a command line; set the "
     "environment variable HF_TOKEN"),
]


@pytest.mark.parametrize(("written", "report"), PROBLEMS, ids=[json.dumps(written) for written, _ in PROBLEMS])
def test_what_is_refused(written: dict[str, Any], report: str) -> None:
    """The whole report."""
    assert [one.line() for one in look(written).problems] == [report]

"""The command-line reference (document 001): what its names mean together. The oracle is the document, and where it contradicts itself
or its trainer, the decision of the specification's semantics, sections 2 and 3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunewright.config.table import values
from tunewright.dialects.read import Examined, examine

LORA = {"finetuning_type": "lora", "lora_target": "q_proj"}

MEANINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"finetuning_type": "none", "lora_alpha": 32.0, "lora_dropout": 0.05, "cutoff_len": 512, "val_size": 0.1, "template": "auto",
          "eval_strategy": "no", "warmup_ratio": 0.03, "warmup_steps": 0, "lr_scheduler_type": "cosine", "save_total_limit": 3,
          "early_stopping_patience": None, "gradient_checkpointing": True, "flash_attn": "auto", "logging_dir": "runs",
          "greater_is_better": False, "metric_for_best_model": "loss", "use_reentrant_gc": True}),
    # warmup_ratio, 0.03 by default, wins over warmup_steps.
    ({"warmup_steps": 10}, {"warmup_steps": 0, "warmup_ratio": 0.03}),
    ({"warmup_steps": 10, "warmup_ratio": 0.1}, {"warmup_steps": 0, "warmup_ratio": 0.1}),
    ({"warmup_steps": 10, "warmup_ratio": 0}, {"warmup_steps": 10, "warmup_ratio": 0.0}),
    ({"warmup_steps": "10", "warmup_ratio": "0.0"}, {"warmup_steps": 10, "warmup_ratio": 0.0}),
    ({"warmup_steps": "1e1"}, {"warmup_steps": 0, "warmup_ratio": 0.03}),
    ({"warmup_steps": 10.0}, {"warmup_steps": 0, "warmup_ratio": 0.03}),
    # Checkpointing is on unless disabled.
    ({"gradient_checkpointing": False}, {"gradient_checkpointing": True}),
    ({"gradient_checkpointing": True}, {"gradient_checkpointing": True}),
    ({"disable_gradient_checkpointing": True}, {"gradient_checkpointing": False}),
    ({"disable_gradient_checkpointing": True, "gradient_checkpointing": False}, {"gradient_checkpointing": False}),
    # Two names for attention.
    ({"attn_implementation": "eager"}, {"flash_attn": "disabled"}),
    ({"attn_implementation": "sdpa"}, {"flash_attn": "sdpa"}),
    ({"attn_implementation": "flash_attention_2"}, {"flash_attn": "fa2"}),
    ({"flash_attn": "auto", "attn_implementation": "eager"}, {"flash_attn": "disabled"}),
    ({"flash_attn": "auto", "attn_implementation": "sdpa"}, {"flash_attn": "sdpa"}),
    ({"flash_attn": "sdpa", "attn_implementation": "eager"}, {"flash_attn": "sdpa"}),
    ({"flash_attn": "fa2", "attn_implementation": "flash_attention_2"}, {"flash_attn": "fa2"}),
    ({"flash_attn": "disabled", "attn_implementation": "eager"}, {"flash_attn": "disabled"}),
    # lora_target is none by default.
    ({"finetuning_type": "lora"}, {"lora_target": ("all",)}),
    ({"finetuning_type": "lora", "lora_target": None}, {"lora_target": ("all",)}),
    ({"finetuning_type": "lora", "lora_target": "none"}, {"lora_target": ("all",)}),
    ({"finetuning_type": "lora", "lora_target": "q_proj,v_proj"}, {"lora_target": ("q_proj", "v_proj")}),
    ({"finetuning_type": "full"}, {"lora_target": ()}),
    # Early stopping has a patience of 3 and no switch.
    ({"early_stopping_patience": 3}, {"early_stopping_patience": None}),
    ({"evaluation_strategy": "steps", "load_best_model_at_end": True}, {"early_stopping_patience": 3}),
    ({"evaluation_strategy": "steps"}, {"early_stopping_patience": None}),
    ({"evaluation_strategy": "steps", "load_best_model_at_end": True, "early_stopping_patience": 7}, {"early_stopping_patience": 7}),
    # Other forms.
    ({"adapter_name_or_path": "a,b"}, {"adapter_name_or_path": ("a", "b")}),
    ({"lora_weight_path": "a"}, {"adapter_name_or_path": ("a",)}),
    ({"report_to": "all"}, {"report_to": ("tensorboard",)}),
    ({"num_train_epochs": 2}, {"num_train_epochs": 2.0}),
    ({"val_size": 100}, {"val_size": 100.0}),
    ({"no_use_reentrant_gc": True}, {"use_reentrant_gc": False}),
]


def look(written: dict[str, Any], folder: Path) -> Examined:
    path = folder / "c.json"
    path.write_text(json.dumps(written))
    return examine([str(path)], dialect="cli_reference")


@pytest.mark.parametrize(("written", "meaning"), MEANINGS, ids=[json.dumps(written)[:70] for written, _ in MEANINGS])
def test_meaning(written: dict[str, Any], meaning: dict[str, Any], tmp_path: Path) -> None:
    """The written settings give these values, without a problem."""
    examined = look(written, tmp_path)
    current = values(examined.reading.config)
    assert [one.line() for one in examined.problems] == []
    assert {field: current[field] for field in meaning} == meaning


NOTES: list[tuple[dict[str, Any], list[str]]] = [
    ({"warmup_steps": 10}, ["c.json:1: warmup_steps: the default warmup_ratio of 0.03 wins over steps in cli_reference; write "
    "warmup_ratio 0 "
                            "for the steps to count"]),
    ({"warmup_steps": 10, "warmup_ratio": 0.2}, ["c.json:1: warmup_steps: warmup_ratio 0.2 at c.json:1 wins over steps in cli_reference; "
                                                 "write warmup_ratio 0 for the steps to count"]),
    ({"warmup_steps": 0}, []),
    ({"warmup_steps": 10, "warmup_ratio": 0}, []),
    ({"gradient_checkpointing": False}, ["c.json:1: gradient_checkpointing: false does not turn gradient checkpointing off in "
    "LLaMA-Factory, "
                                         "nor here; write disable_gradient_checkpointing: true"]),
    ({"gradient_checkpointing": False, "disable_gradient_checkpointing": True}, []),
    ({"flash_attn": "sdpa", "attn_implementation": "eager"}, ["c.json:1: attn_implementation: flash_attn sdpa at c.json:1 wins over eager, "
                                                              "the default"]),
    ({"flash_attn": "auto", "attn_implementation": "sdpa"}, []),
    ({"finetuning_type": "lora"}, ["lora_target is none, and LoRA needs targets: every linear layer but the head gets an adapter, as with "
                                   "`all`"]),
    (LORA, []),
    ({"early_stopping_patience": 3}, ["c.json:1: early_stopping_patience: nothing stops early, because evaluation_strategy is no"]),
    ({"dataset": "d"}, ["val_size is 0.1 by default in cli_reference: a tenth of the rows is held back, though evaluation_strategy is no; "
                        "write 0 to train on all"]),
    ({"dataset": "d", "val_size": 0.1}, []),
    ({"no_cuda": True, "evaluation_strategy": "no"}, []),
]


@pytest.mark.parametrize(("written", "notes"), NOTES, ids=[json.dumps(written) for written, _ in NOTES])
def test_what_is_worth_telling(written: dict[str, Any], notes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of the notes; a live name of this document brings none, although LLaMA-Factory deprecates it."""
    monkeypatch.chdir(tmp_path)
    assert list(look(written, Path()).reading.notes) == notes


PROBLEMS: list[tuple[dict[str, Any], str]] = [
    ({"flash_attn": "sdpa", "attn_implementation": "flash_attention_2"},
     "c.json:1: attn_implementation: contradicts flash_attn: sdpa at c.json:1; both are names of flash_attn; remove one of them"),
    ({"disable_gradient_checkpointing": True, "gradient_checkpointing": True},
     "c.json:1: gradient_checkpointing: contradicts disable_gradient_checkpointing: true at c.json:1; both are names of "
     "gradient_checkpointing; remove one of them"),
    ({"save_steps": 0.1}, "c.json:1: save_steps: 0.1 is a fraction of the run, which this vocabulary does not have; write a whole number "
    "of "
     "steps"),
    ({"eval_steps": 0.5}, "c.json:1: eval_steps: 0.5 is a fraction of the run, which this vocabulary does not have; write a whole number "
    "of "
     "steps"),
    ({"logging_steps": "0.5"}, "c.json:1: logging_steps: '0.5' is a fraction of the run, which this vocabulary does not have; write a "
    "whole "
     "number of steps"),
    ({"lora_alpha": None}, "c.json:1: lora_alpha: null has no meaning in this vocabulary; write a number, or leave it out for the default"),
    ({"eval_steps": None}, "c.json:1: eval_steps: null has no meaning in this vocabulary; write a number, or leave it out for the default"),
    ({"warmup_steps": -1}, "c.json:1: warmup_steps: -1 is out of range; write an integer >= 0"),
]


@pytest.mark.parametrize(("written", "report"), PROBLEMS, ids=[json.dumps(written) for written, _ in PROBLEMS])
def test_what_is_refused(written: dict[str, Any], report: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole report."""
    monkeypatch.chdir(tmp_path)
    assert [one.line() for one in look(written, Path()).problems] == [report]


def test_origins_say_why(tmp_path: Path) -> None:
    """What depends on what was written is derived, and `explain` says from what."""
    origins = look({"finetuning_type": "lora"}, tmp_path).reading.origins
    assert origins["lora_target"].describe() == "derived: lora_target is none, and LoRA needs targets"
    assert origins["early_stopping_patience"].describe() == "derived: nothing stops early unless evaluations find a best model"
    assert origins["lora_alpha"].describe() == "default of cli_reference"

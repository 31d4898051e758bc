"""LLaMA-Factory's meanings (its document, corrected by what the trainer does): each case gives a file and what it must mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunewright.config.table import values
from tunewright.dialects.read import read_config

MEANINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"gradient_checkpointing": True, "do_train": False, "cutoff_len": 1024, "lr_scheduler_type": "linear",
          "logging_steps": 500.0, "learning_rate": 5e-5, "neat_packing": False, "plot_loss": False, "max_length": None,
          "resume_from_checkpoint": "auto", "report_to": (), "optim": "adamw_torch", "template": "auto"}),
    ({"disable_gradient_checkpointing": True}, {"gradient_checkpointing": False}),
    ({"gradient_checkpointing": False}, {"gradient_checkpointing": True}),
    ({"gradient_checkpointing": True}, {"gradient_checkpointing": True}),
    ({"gradient_checkpointing": False, "disable_gradient_checkpointing": True}, {"gradient_checkpointing": False}),
    ({"gradient_checkpointing_kwargs": "{'use_reentrant': True}"}, {"use_reentrant_gc": True}),
    ({"neat_packing": True}, {"neat_packing": True, "packing": True}),
    ({"neat_packing": True, "packing": False}, {"packing": True}),
    ({"packing": None}, {"packing": None}),
    ({"report_to": None}, {"report_to": ()}),
    ({"report_to": "none"}, {"report_to": ()}),
    ({"report_to": "all"}, {"report_to": ("tensorboard",)}),
    ({"report_to": ["tensorboard"]}, {"report_to": ("tensorboard",)}),
    ({"report_to": "['tensorboard', 'console']"}, {"report_to": ("tensorboard", "console")}),
    ({"report_to": "[]"}, {"report_to": ()}),
    ({"rope_scaling": "none"}, {"rope_scaling": None}),
    ({"dataset": "a,b , c"}, {"dataset": ("a", "b", "c")}),
    ({"dataset": None}, {"dataset": ()}),
    ({"lora_target": "q_proj,v_proj"}, {"lora_target": ("q_proj", "v_proj")}),
    ({"lr_scheduler_kwargs": "{'num_cycles': 2}"}, {"lr_scheduler_kwargs": {"num_cycles": 2}}),
    ({"lr_scheduler_kwargs": {}}, {"lr_scheduler_kwargs": None}),
    ({"optim_args": "scale_parameter=False"}, {"optim_args": {"scale_parameter": False}}),
    ({"adafactor": True}, {"optim": "adafactor"}),
    ({"adafactor": False, "optim": "adamw_torch_fused"}, {"optim": "adamw_torch_fused"}),
    ({"template": None}, {"template": "auto"}),
    ({"template": "llama3"}, {"template": "llama3"}),
    ({"resume_from_checkpoint": None}, {"resume_from_checkpoint": "auto"}),
    ({"resume_from_checkpoint": True}, {"resume_from_checkpoint": "auto"}),
    ({"resume_from_checkpoint": False}, {"resume_from_checkpoint": "none"}),
    ({"disable_tqdm": None}, {"disable_tqdm": False}),
    ({"no_plot_loss": True, "plot_loss": False}, {"plot_loss": False}),
    ({"no_do_sample": False}, {"do_sample": True}),
    ({"evaluation_strategy": "epoch"}, {"eval_strategy": "epoch"}),
    ({"evaluation_strategy": None}, {"eval_strategy": "no"}),
    ({"per_gpu_train_batch_size": 3}, {"per_device_train_batch_size": 3}),
    ({"no_cuda": True}, {"use_cpu": True}),
    ({"num_beams": 4, "eval_num_beams": None}, {"num_beams": 4}),
    ({"generation_num_beams": 2}, {"num_beams": 2}),
    ({"use_kv_cache": False}, {"use_cache": False}),
    ({"disable_shuffling": True}, {"disable_shuffling": True}),
    ({"early_stopping_steps": 2, "load_best_model_at_end": True, "eval_strategy": "epoch"}, {"early_stopping_patience": 2}),
    ({"eval_on_each_dataset": False, "data_shared_file_system": True, "skip_special_tokens": True}, {"disable_shuffling": False}),
    ({"ddp_timeout": 180000000}, {"ddp_timeout": 7200}),
    ({"ddp_timeout": "1.8e8"}, {"ddp_timeout": 7200}),
    ({"save_steps": 0.1, "logging_steps": 0.01}, {"save_steps": 0.1, "logging_steps": 0.01}),
    ({"warmup_steps": 10, "warmup_ratio": 0.5}, {"warmup_steps": 10, "warmup_ratio": 0.5}),
    ({"remove_unused_columns": False, "low_cpu_mem_usage": True, "infer_backend": "huggingface", "fsdp": "", "debug": None},
     {"gradient_checkpointing": True}),
]


@pytest.mark.parametrize(("written", "meaning"), MEANINGS, ids=[json.dumps(written)[:60] for written, _ in MEANINGS])
def test_meaning(written: dict[str, Any], meaning: dict[str, Any], tmp_path: Path) -> None:
    """The written settings give these values."""
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"dialect": "llamafactory", **written}))
    current = values(read_config([str(path)]).config)
    assert {field: current[field] for field in meaning} == meaning


NOTES = [
    ("gradient_checkpointing: false", "c.yaml:2: gradient_checkpointing: false does not turn gradient checkpointing off in "
     "LLaMA-Factory, nor here; write disable_gradient_checkpointing: true"),
    ("ddp_timeout: 180000000", "c.yaml:2: ddp_timeout: 180000000 seconds is more than a lost rank is waited for; 7200 is used"),
    ("evaluation_strategy: epoch", "c.yaml:2: evaluation_strategy: an old name of llamafactory; its name is eval_strategy"),
    ("neat_packing: true\npacking: false", "c.yaml:2: neat_packing: true turns packing on, as in LLaMA-Factory"),
]


@pytest.mark.parametrize(("text", "note"), NOTES)
def test_what_was_understood_in_a_way_worth_telling(text: str, note: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One note each, the whole line."""
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(f"dialect: llamafactory\n{text}\n")
    assert read_config(["c.yaml"]).notes == (note,)


def test_as_its_command_line(tmp_path: Path) -> None:
    """The command line of its document: switches, quoted dictionaries, comma lists."""
    line = ("--do_train --stage sft --model_name_or_path m --dataset a,b --lora_target q_proj,v_proj --disable_gradient_checkpointing "
             "--lr_scheduler_kwargs {'num_cycles':1} --no_do_sample --packing True --output_dir o --bf16")
    reading = read_config(line.split())
    assert reading.dialect == "llamafactory"
    assert {field: values(reading.config)[field] for field in reading.given} == {
        "do_train": True, "stage": "sft", "model_name_or_path": "m", "dataset": ("a", "b"), "lora_target": ("q_proj", "v_proj"),
        "gradient_checkpointing": False, "lr_scheduler_kwargs": {"num_cycles": 1}, "do_sample": False, "packing": True,
        "output_dir": "o", "bf16": True}

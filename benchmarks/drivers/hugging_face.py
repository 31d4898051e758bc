"""What the drivers of tools on top of the transformers Trainer share: a callback, a data set, losses from the log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stopwatch import Stopwatch

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainerCallback


def watching(watch: Stopwatch) -> TrainerCallback:
    """A callback that stamps the end of each step."""
    from transformers import TrainerCallback

    class Watching(TrainerCallback):
        def on_step_end(self, *_given: Any, **_named: Any) -> None:
            watch.step_ended()

    return Watching()


def rows_of(path: str) -> list[dict[str, list[int]]]:
    """The rows, with a mask that hides none of their tokens."""
    found = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in found]


def data_set(path: str) -> Dataset:
    """The rows in the format of the package `datasets`, for tools that take nothing else."""
    from datasets import Dataset

    return Dataset.from_list(rows_of(path))


def packs_of(job: dict[str, Any]) -> list[list[dict[str, list[int]]]]:
    """The rows of each packed sequence."""
    rows = rows_of(job["rows"])
    return [[rows[number] for number in numbers] for numbers in job["packs"]]


def end_to_end(pack: list[dict[str, list[int]]], name: str) -> list[int]:
    """`name` of all rows of a sequence."""
    return [token for row in pack for token in row[name]]


def settings(job: dict[str, Any]) -> dict[str, Any]:
    """Training arguments that are the same for all: optimizer, rate, steps, batches; nothing is saved or reported."""
    return {
        "output_dir": job["output"], "per_device_train_batch_size": job["batch"], "gradient_accumulation_steps": 1,
        "max_steps": job["steps"], "logging_steps": 1, "learning_rate": job["learning_rate"], "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused", "weight_decay": 0.0, "max_grad_norm": 1.0, "save_strategy": "no", "report_to": "none",
        "use_cpu": not job.get("gpu", False), "bf16": job.get("gpu", False), "seed": 0, "dataloader_num_workers": 0, "disable_tqdm": True}


def losses(history: list[dict[str, Any]]) -> list[float]:
    """The loss of each step."""
    return [entry["loss"] for entry in history if "loss" in entry]


def trainable(job: dict[str, Any]) -> Any:
    """The model in float32, on a GPU in bfloat16, with the adapter that all sides begin with, or all weights to be trained."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.bfloat16 if job.get("gpu") else torch.float32)
    if job["adapter"] is None:
        return model
    from peft import PeftModel

    return PeftModel.from_pretrained(model, job["adapter"], is_trainable=True)

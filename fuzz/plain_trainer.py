"""The same training with transformers' Trainer as its manual has it, for contrast: `python plain_trainer.py MODEL ROWS OUT`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint


class Rows(Dataset[dict[str, Any]]):
    """Question and answer of each row as 24 tokens, cut or filled."""

    def __init__(self, model: str, rows: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        texts = [f"{row['instruction']} {row['output']}" for row in map(json.loads, rows.read_text(encoding="utf-8").splitlines())]
        self.ids = [(tokenizer(text)["input_ids"] + [0] * 24)[:24] for text in texts]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = torch.tensor(self.ids[index])
        return {"input_ids": ids, "labels": ids.clone()}


def main(model: str, rows: str, out: str) -> None:
    """Train, from the last checkpoint if there is one."""
    torch.manual_seed(0)
    arguments = TrainingArguments(
        output_dir=out, max_steps=6, save_steps=2, per_device_train_batch_size=2, use_cpu=True, report_to=[], logging_steps=1, seed=0,
        data_seed=0, disable_tqdm=True)
    opened = AutoModelForCausalLM.from_pretrained(model, trust_remote_code=False)
    trainer = Trainer(opened, arguments, train_dataset=Rows(model, Path(rows)))
    last = get_last_checkpoint(out) if Path(out).is_dir() else None
    if last is not None:
        print(f"resuming from {last} (step {last.rpartition('-')[2]})", flush=True)
    trainer.train(resume_from_checkpoint=last)
    trainer.save_model(out)


if __name__ == "__main__":
    main(*sys.argv[1:4])

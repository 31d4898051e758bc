"""LitGPT, through the function behind `litgpt finetune_lora` or `litgpt finetune_full`, on rows that are tokens already.

Its layers are its own, so it begins with an adapter of its own (zero, as the others): only the loss of the first step is comparable. It
warms up for a step at least, knows no constant rate and does not clip gradients. usage: lit_gpt.py JOB.json  ->  one line RESULT {...}
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

from stopwatch import Stopwatch, read_job


def main() -> None:
    """Train, and tell what it took."""
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.finetune import full, lora
    from torch.optim.optimizer import register_optimizer_step_post_hook

    job, watch = read_job(), Stopwatch()
    output = Path(job["output"])
    register_optimizer_step_post_hook(lambda *_: watch.step_ended())
    steps = TrainArgs(
        save_interval=None, log_interval=1, global_batch_size=job["batch"], micro_batch_size=job["batch"], lr_warmup_steps=1,
        epochs=1000, max_steps=job["steps"])
    common = {
        "checkpoint_dir": _converted(job), "out_dir": output, "precision": "32-true", "devices": 1, "data": _data(job), "train": steps,
        "eval": EvalArgs(interval=10**9, max_iters=1, max_new_tokens=1, final_validation=False), "seed": 0,
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": job["learning_rate"], "weight_decay": 0.0, "fused": True}}}
    if job["adapter"] is None:
        full.setup(**common)
    else:
        lora.merge_lora = lambda **_named: None  # reads the settings from a command line, which there is none of; it is not timed
        lora.setup(**common, lora_r=8, lora_alpha=16, lora_dropout=0.0, lora_query=True, lora_key=True, lora_value=True,
                   lora_projection=True, lora_mlp=True)
    (log,) = output.rglob("metrics.csv")
    with log.open(encoding="utf-8") as file:
        watch.tell(job, [float(row["loss"]) for row in csv.DictReader(file) if row.get("loss")])


def _converted(job: dict[str, Any]) -> Path:
    """The model in LitGPT's own format, beside the rows; made once."""
    from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint

    source = Path(job["model"])
    target = Path(job["rows"]).parent / "litgpt" / "SmolLM2-135M-Instruct"
    if not (target / "lit_model.pth").exists():
        shutil.copytree(source, target, dirs_exist_ok=True)
        convert_hf_checkpoint(target, model_name="SmolLM2-135M-Instruct", dtype="float32")
    return target


def _data(job: dict[str, Any]) -> Any:
    """A LitGPT data module over the rows, in their order."""
    import torch
    from litgpt.data.base import DataModule, get_sft_collate_fn
    from litgpt.prompts import Default
    from torch.utils.data import DataLoader

    rows = [json.loads(line) for line in Path(job["rows"]).read_text(encoding="utf-8").splitlines()]
    held = [{"input_ids": torch.tensor(row["input_ids"]), "labels": torch.tensor(row["labels"]),
             "token_counts": {"raw": len(row["input_ids"]), "raw_plus_prompt_template": len(row["input_ids"])}} for row in rows]

    class Rows(DataModule):
        prompt_style = Default()

        def connect(self, tokenizer: Any = None, batch_size: int = 1, max_seq_length: int | None = None, **_more: Any) -> None:
            self.batch_size = batch_size

        def train_dataloader(self) -> DataLoader:
            return DataLoader(held, batch_size=self.batch_size, collate_fn=get_sft_collate_fn())

        def val_dataloader(self) -> DataLoader:
            return DataLoader(held[:1], batch_size=1, collate_fn=get_sft_collate_fn())

    return Rows()


if __name__ == "__main__":
    main()

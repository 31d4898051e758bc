"""LLaMA-Factory, through the function behind `llamafactory-cli train`, on rows that are tokens already (its `tokenized_path`).

Gradient checkpointing is on by its default; `options` may switch it off. usage: llama_factory.py JOB.json  ->  one line RESULT {...}
"""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from hugging_face import data_set, end_to_end, losses, packs_of, settings, watching
from stopwatch import Stopwatch, read_job


def main() -> None:
    """Train, and tell what it took."""
    _without_sound()
    from datasets import DatasetDict
    from llamafactory.train.tuner import run_exp

    job, watch = read_job(), Stopwatch()
    tokens = Path(job["output"]) / "tokens"
    DatasetDict({"train": _packed(job) if "packs" in job else data_set(job["rows"])}).save_to_disk(str(tokens))
    packing = {"neat_packing": True, "cutoff_len": job["capacity"]} if "packs" in job else {}
    tuning = {"finetuning_type": "full"} if job["adapter"] is None else {
        "finetuning_type": "lora", "lora_rank": 8, "lora_alpha": 16, "lora_target": "all", "adapter_name_or_path": job["adapter"]}
    run_exp({
        **settings(job), **tuning, "model_name_or_path": job["model"], "stage": "sft", "do_train": True, "template": "chatml",
        "dataset": "unread", "tokenized_path": str(tokens), "disable_shuffling": True, **packing,
        **job["options"]}, callbacks=[watching(watch)])
    state = json.loads((Path(job["output"]) / "trainer_state.json").read_text(encoding="utf-8"))
    watch.tell(job, losses(state["log_history"]))


def _packed(job: dict[str, Any]) -> Any:
    """Packed sequences as its `neat_packing` writes them: rows numbered in the mask, padded to a token more than `cutoff_len`; and to a
    multiple of eight, which its collator would do to all but the positions."""
    from datasets import Dataset

    found, room = [], (job["capacity"] + 8) // 8 * 8
    for pack in packs_of(job):
        lengths = [len(row["input_ids"]) for row in pack]
        padding = room - sum(lengths)
        found.append({
            "input_ids": end_to_end(pack, "input_ids") + [0] * padding, "labels": end_to_end(pack, "labels") + [-100] * padding,
            "attention_mask": [number for number, length in enumerate(lengths, 1) for _ in range(length)] + [0] * padding,
            "position_ids": [place for length in lengths for place in range(length)] + [0] * padding})
    return Dataset.from_list(found)


def _without_sound() -> None:
    """LLaMA-Factory imports torchaudio at its start, whose builds do not fit every build of torch; text needs nothing of it."""
    if find_spec("torchaudio") is None:
        stub = ModuleType("torchaudio")
        stub.__spec__ = ModuleSpec("torchaudio", None)
        sys.modules["torchaudio"] = stub


if __name__ == "__main__":
    main()

"""TRL's SFTTrainer on rows that are tokens already. Gradient checkpointing is on by its default; `options` may switch it off.

usage: trl_sft.py JOB.json  ->  one line RESULT {...}
"""

from __future__ import annotations

from typing import Any

from hugging_face import data_set, end_to_end, losses, packs_of, settings, trainable, watching
from stopwatch import Stopwatch, read_job


def main() -> None:
    """Train, and tell what it took."""
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    job, watch = read_job(), Stopwatch()
    packing: dict[str, Any] = {"max_length": None}
    if "packs" in job:  # as its own packing leaves them, which is told not to do so again
        packing = {"max_length": job["capacity"], "packing": True, "dataset_kwargs": {"skip_prepare_dataset": True}}
    arguments = SFTConfig(**settings(job), train_sampling_strategy="sequential", **packing, **job["options"])
    rows = _packed(job) if "packs" in job else data_set(job["rows"]).select_columns(["input_ids", "labels"])
    trainer = SFTTrainer(trainable(job), arguments, train_dataset=rows, processing_class=AutoTokenizer.from_pretrained(job["model"]),
                         callbacks=[watching(watch)])
    trainer.train()
    watch.tell(job, losses(trainer.state.log_history))


def _packed(job: dict[str, Any]) -> Any:
    """Packed sequences with the lengths of their rows."""
    from datasets import Dataset

    return Dataset.from_list([{
        **{name: end_to_end(pack, name) for name in ("input_ids", "labels")}, "seq_lengths": [len(row["input_ids"]) for row in pack]}
        for pack in packs_of(job)])


if __name__ == "__main__":
    main()

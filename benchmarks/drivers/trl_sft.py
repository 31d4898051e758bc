"""TRL's SFTTrainer on rows that are tokens already. Gradient checkpointing is on by its default; `options` may switch it off.

usage: trl_sft.py JOB.json  ->  one line RESULT {...}
"""

from __future__ import annotations

from hugging_face import data_set, losses, settings, trainable, watching
from stopwatch import Stopwatch, read_job


def main() -> None:
    """Train, and tell what it took."""
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    job, watch = read_job(), Stopwatch()
    arguments = SFTConfig(**settings(job), train_sampling_strategy="sequential", max_length=None, **job["options"])
    rows = data_set(job["rows"]).select_columns(["input_ids", "labels"])
    trainer = SFTTrainer(trainable(job), arguments, train_dataset=rows, processing_class=AutoTokenizer.from_pretrained(job["model"]),
                         callbacks=[watching(watch)])
    trainer.train()
    watch.tell(job, losses(trainer.state.log_history))


if __name__ == "__main__":
    main()

"""The transformers Trainer with peft, as its documentation has it: no gradient checkpointing, batches padded to their longest row; packed
sequences by its DataCollatorWithFlattening, whose positions tell its attention where a row begins.

usage: plain_trainer.py JOB.json  ->  one line RESULT {...}
"""

from __future__ import annotations

from typing import Any

from hugging_face import losses, packs_of, rows_of, settings, trainable, watching
from stopwatch import Stopwatch, read_job


def main() -> None:
    """Train, and tell what it took."""
    from transformers import Trainer, TrainingArguments

    job, watch = read_job(), Stopwatch()
    arguments = TrainingArguments(**settings(job), train_sampling_strategy="sequential", **job["options"])
    trainer = Trainer(trainable(job), arguments, *_batches(job), callbacks=[watching(watch)])
    trainer.train()
    watch.tell(job, losses(trainer.state.log_history))


def _batches(job: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The collator, and the rows or packed sequences."""
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq, DataCollatorWithFlattening

    if "packs" not in job:
        return DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(job["model"]), padding="longest"), rows_of(job["rows"])
    flatten = DataCollatorWithFlattening()
    return (lambda packs: flatten([row for pack in packs for row in pack])), packs_of(job)


if __name__ == "__main__":
    main()

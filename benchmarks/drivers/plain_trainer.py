"""The transformers Trainer with peft, as its documentation has it: no gradient checkpointing, batches padded to their longest row.

usage: plain_trainer.py JOB.json  ->  one line RESULT {...}
"""

from __future__ import annotations

from hugging_face import losses, rows_of, settings, trainable, watching
from stopwatch import Stopwatch, read_job


def main() -> None:
    """Train, and tell what it took."""
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    job, watch = read_job(), Stopwatch()
    arguments = TrainingArguments(**settings(job), train_sampling_strategy="sequential", **job["options"])
    collator = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(job["model"]), padding="longest")
    trainer = Trainer(trainable(job), arguments, collator, rows_of(job["rows"]), callbacks=[watching(watch)])
    trainer.train()
    watch.tell(job, losses(trainer.state.log_history))


if __name__ == "__main__":
    main()

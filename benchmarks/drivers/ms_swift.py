"""ms-swift, through the class behind `swift sft`, on rows that are tokens already. Gradient checkpointing is on by its default.

usage: ms_swift.py JOB.json  ->  one line RESULT {...}
"""

from __future__ import annotations

from typing import Any

from hugging_face import data_set, losses, settings, watching
from stopwatch import Stopwatch, read_job


def main() -> None:
    """Train, and tell what it took."""
    from swift.pipelines import SwiftSft

    job, watch = read_job(), Stopwatch()

    class Training(SwiftSft):
        def _prepare_dataset(self) -> list[Any]:
            return [data_set(job["rows"]).select_columns(["input_ids", "labels"]), None]

        def train(self, trainer: Any) -> Any:
            trainer.add_callback(watching(watch))
            return super().train(trainer)

    tuning = {"tuner_type": "full"} if job["adapter"] is None else {
        "tuner_type": "lora", "lora_rank": 8, "lora_alpha": 16, "lora_dropout": 0.0, "adapters": job["adapter"]}
    chosen = {
        **settings(job), **tuning, "model": job["model"], "model_type": "llama", "template": "chatml", "dataset": "unread",
        "torch_dtype": "float32", "train_dataloader_shuffle": False, "split_dataset_ratio": 0, "load_args": False, **job["options"]}
    told = Training([word for name, value in chosen.items() for word in (f"--{name}", str(value).lower() if isinstance(value, bool)
                                                                         else str(value))]).main()
    watch.tell(job, losses(told["log_history"]))


if __name__ == "__main__":
    main()

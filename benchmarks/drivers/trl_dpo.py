"""TRL's DPOTrainer on pairs that are tokens already. Gradient checkpointing and a live reference are its defaults.

The adapter is one that the trainer makes itself, so that its reference is the model with the adapter switched off, TRL's cheapest; its
weights are then those that every side begins with.

usage: trl_dpo.py JOB.json  ->  one line RESULT {...}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hugging_face import losses, settings, watching
from stopwatch import Stopwatch, read_job


def main() -> None:
    """Train, and tell what it took."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, set_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    class Tokenized(DPOTrainer):
        def _prepare_dataset(self, dataset: Dataset, *_given: Any, **_named: Any) -> Dataset:
            return dataset

    job, watch = read_job(), Stopwatch()
    rows = [json.loads(line) for line in Path(job["rows"]).read_text(encoding="utf-8").splitlines()]
    adapter = LoraConfig.from_pretrained(job["adapter"])
    adapter.inference_mode = False  # a file of an adapter says that it does not train
    arguments = DPOConfig(**settings(job), train_sampling_strategy="sequential", beta=job["beta"], **job["options"])
    trainer = Tokenized(
        AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32), args=arguments, train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(job["model"]), peft_config=adapter,
        callbacks=[watching(watch)])
    set_peft_model_state_dict(trainer.model, load_file(Path(job["adapter"]) / "adapter_model.safetensors"))
    trainer.train()
    watch.tell(job, losses(trainer.state.log_history))


if __name__ == "__main__":
    main()

"""tunewright, through the function behind `tunewright train`. `options` are settings of the run.

usage: own_training.py JOB.json  ->  one line RESULT {...}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stopwatch import Stopwatch, read_job


def main() -> None:
    """Train, and tell what it took."""
    job, watch = read_job(), Stopwatch()
    watch.tell(job, trained(settings(job), watch))


def trained(words: dict[str, Any], watch: Stopwatch) -> list[float]:
    """Train with these settings, stamping the end of each step; the loss of each."""
    from tunewright.commands import train
    from tunewright.engine import assemble
    from tunewright.engine.hooks import StepHook

    class Watching(StepHook):
        def advanced(self, state: Any) -> None:
            watch.step_ended()

    hooks = assemble.hooks
    assemble.hooks = lambda *given: (*hooks(*given), Watching())  # nothing that a user sets takes a hook of his own
    if code := train.run([f"{name}={value}" for name, value in words.items()]):
        raise SystemExit(code)
    state = json.loads((Path(words["output_dir"]) / "trainer_state.json").read_text(encoding="utf-8"))
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


def settings(job: dict[str, Any]) -> dict[str, Any]:
    """The run as a user would write it: what all sides have in common, and the options of this one."""
    tuning = {"finetuning_type": "full"} if job["adapter"] is None else {
        "finetuning_type": "lora", "lora_rank": 8, "lora_alpha": 16, "adapter_name_or_path": job["adapter"]}
    packing = {"packing": "true", "cutoff_len": job["capacity"]} if "packs" in job else {}
    return {
        **tuning, **packing, "model_name_or_path": job["model"], "dataset": job["rows"], "output_dir": job["output"],
        "data_cache_dir": "none", "per_device_train_batch_size": job["batch"], "max_steps": job["steps"], "disable_shuffling": "true",
        "learning_rate": job["learning_rate"], "lr_scheduler_type": "constant", "optim": "adamw_torch_fused", "weight_decay": 0.0,
        "max_grad_norm": 1.0, "logging_steps": 1, "save_strategy": "no", "plot_loss": "false", "seed": 0, "disable_tqdm": "true",
        **({"pure_bf16": "true", "bf16": "true"} if job.get("gpu") else {"use_cpu": "true"}), **job["options"]}


if __name__ == "__main__":
    main()

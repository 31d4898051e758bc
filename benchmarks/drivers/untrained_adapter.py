"""The untrained adapter that every side begins with, so that their losses can be compared at every step.

usage: untrained_adapter.py JOB.json  ->  one line RESULT {}
"""

from __future__ import annotations

from stopwatch import read_job


def main() -> None:
    """Write it to the folder `adapter` of the job."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch import nn
    from transformers import AutoModelForCausalLM

    job = read_job()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    # Linear layers below the head are spelled out, because versions of peft differ in what `all-linear` becomes.
    linear = sorted({name.rpartition(".")[2] for name, module in model.model.named_modules() if isinstance(module, nn.Linear)})
    settings = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=linear, task_type="CAUSAL_LM")
    get_peft_model(model, settings).save_pretrained(job["adapter"])
    print("RESULT {}")


if __name__ == "__main__":
    main()

"""Wrong settings. The answers are written by hand from what a user needs: the place, the key as written, what is wrong, what to write."""

from __future__ import annotations

from typing import Final, NamedTuple


class Wrong(NamedTuple):
    """One wrong value. `what` is what the line says after the key, up to the end, with ` ... ` for free text."""

    key: str
    value: str
    what: str


WRONG: Final = (
    Wrong("learnig_rate", "1", "unknown key; did you mean learning_rate?"),
    Wrong("learning_rate", "1e-4x", "'1e-4x' is not a number; write a number > 0"),
    Wrong("learning_rate", "-1e-4", "-0.0001 is out of range; write a number > 0"),
    Wrong("learning_rate", "nan", "'nan' is not a number; write a number > 0"),
    Wrong("learning_rate", "1e10", "10000000000 is out of range; write a number > 0 and <= 100"),
    Wrong("weight_decay", "-5", "-5 is out of range; write a number >= 0"),
    Wrong("max_grad_norm", "-1", "-1 is out of range; write a number >= 0"),
    Wrong("ddp_timeout", "-1", "-1 is out of range; write an integer >= 10 and <= 7200"),
    Wrong("save_steps", "0", "0 is out of range; write a number > 0"),
    Wrong("save_steps", "-3", "-3 is out of range; write a number > 0"),
    Wrong("logging_steps", "-1", "-1 is out of range; write a number > 0"),
    Wrong("save_total_limit", "-1", "-1 is out of range; write an integer >= 1"),
    Wrong("gradient_accumulation_steps", "-1", "-1 is out of range; write an integer >= 1"),
    Wrong("gradient_accumulation_steps", "0", "0 is out of range; write an integer >= 1"),
    Wrong("gradient_accumulation_steps", "1.5", "... is not an integer; write an integer >= 1"),
    Wrong("per_device_train_batch_size", "0", "0 is out of range; write an integer >= 1"),
    Wrong("per_device_train_batch_size", "-2", "-2 is out of range; write an integer >= 1"),
    Wrong("per_device_train_batch_size", "9" * 400, "... is out of range; write an integer >= 1"),
    Wrong("optim", "adamw_torhc", "'adamw_torhc' is not one of ... did you mean 'adamw_torch'?"),
    Wrong("lr_scheduler_type", "cosin", "'cosin' is not one of ... did you mean 'cosine'?"),
    Wrong("optim_args", "lr==", "'lr==' is not key=value; write a mapping"),
    Wrong("optim_args", "foo", "'foo' is not key=value; write a mapping"),
    Wrong("lr_scheduler_kwargs", "\"{'num_cycles': \"", "... is neither JSON nor a Python literal; write a mapping"),
    Wrong("stage", "stf", "'stf' is not one of ... did you mean 'sft'?"),
    Wrong("template", "qwen25x", "there is no bundled template 'qwen25x'; did you mean qwen2.5"),
    Wrong("lora_target", "'['", "'[' is not a valid pattern: unterminated character set at position 0; write module names"),
    Wrong("lora_target", "q_porj", "'q_porj' matches no module of this model; use q_proj"),
    Wrong("lora_rank", "0", "0 is out of range; write an integer >= 1"),
    Wrong("lora_rank", "1000000", "1000000 is out of range; write an integer >= 1 and <= 65536"),
    Wrong("lora_alpha", "-8", "-8 is out of range; write a"),
    Wrong("lora_dropout", "-0.1", "-0.1 is out of range; write a number >= 0 and < 1"),
    Wrong("additional_target", "nope", "'nope' matches no module of this model; use"),
    Wrong("val_size", "-1", "-1 is out of range; write a number >= 0"),
    Wrong("cutoff_len", "0", "0 is out of range; write an integer >= 8"),
    Wrong("quantization_bit", "5", "5 is not one of 4, 8"),
    Wrong("deepspeed", "ds.json", "not built yet; remove it"),
    Wrong("report_to", "tensorbord", "'tensorbord' is not one of ... did you mean 'tensorboard'?"),
    Wrong("seed", "-1", "-1 is out of range; write an integer >= 0 and <= 4294967295"),
    Wrong("seed", "18446744073709551616", "18446744073709551616 is out of range; write an integer >= 0 and <= 4294967295"),
    Wrong("max_steps", "0", "0 steps train nothing; write -1"),
    Wrong("max_steps", "-5", "-5 is out of range; write"),
    Wrong("bf16", "maybe", "'maybe' is not true or false; write true or false"),
    Wrong("fp16", "true", "half precision with loss scaling needs an accelerator, but use_cpu is on; use bf16"),
    Wrong("resume_from_checkpoint", "out/checkpoint-9", "path not found: out/checkpoint-9; out has no checkpoint; give"),
    Wrong("load_best_model_at_end", "true", "needs evaluations to find the best, but eval_strategy is no; set eval_strategy"),
    Wrong("metric_for_best_model", "eval_los", "'eval_los' is no metric of an evaluation; did you mean eval_loss?"),
    Wrong("hf_hub_token", "hf_abcdef", "a secret does not belong in a configuration ... HF_TOKEN"),
)


def expected(place: str, key: str, wrong: Wrong) -> str:
    """The line that is to be told of a setting, written at `place` as `key`; an ellipsis stands for any words."""
    gap = " ... " if not wrong.what.startswith("...") else " "
    return f"{place}: {key}{gap if key != wrong.key else ': '}{wrong.what}".replace(": ... ", " ... ")

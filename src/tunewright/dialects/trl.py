"""The keys of TRL's files (ScriptArguments, ModelConfig, SFTConfig, 2026) and of TrainingArguments in our names; those of its other
trainers are in `trl_alignment`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tunewright.dialects.spelling import Foreign, Means, Meant, arguments, is_empty, is_on, not_here, nothing, switch, words
from tunewright.dialects.trl_alignment import (
    GRPO_KEYS,
    PPO_KEYS,
    PREFERENCE_KEYS,
    alignment_defaults,
    alignment_remarks,
    loss_of,
    of_batches,
)
from tunewright.dialects.trl_trainer import is_guessed, trainer_of


def _attention(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    known = {"eager": "disabled", "sdpa": "sdpa", "flash_attention_2": "fa2"}
    name = known.get(value) if isinstance(value, str) else None
    return [Meant(None, why="attention is sdpa, fa2 or eager here") if name is None else Meant("flash_attn", name)]


def _dtype(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    if value == "bfloat16":
        return [Meant("pure_bf16", True)]
    if value == "float32":
        return [Meant(None, why="weights are kept in float32 anyway", is_lost=False)]
    return [Meant(None, why="weights are kept in float32, or in bfloat16 with pure_bf16")]


def _split(usual: str) -> Means:
    return lambda value, values: [Meant(None, why="the split is not chosen by name; name the file", is_lost=value != usual)]


def _text_field(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    return [Meant(None, why="columns are found in the first row, or named in dataset_info.json", is_lost=value != "text")]


def _packing_strategy(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    """`bfd` keeps rows whole and apart; `wrapped` does neither."""
    if value == "bfd":
        return [Meant("neat_packing", True)]
    return [Meant(None, why="rows are packed whole")]


def _answers_only(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    """Several keys say which tokens are trained: answers only if any says so."""
    is_answers = any(is_on(values.get(key)) for key in ("completion_only_loss", "assistant_only_loss"))
    return [Meant("train_on_prompt", not is_answers)]


def _loss(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    trainer = trainer_of(values)
    if trainer != "sft":
        return loss_of(trainer, value, values.get("loss_weights"))
    if value in ("nll", "chunked_nll"):
        return [Meant(None, why="the same loss", is_lost=False)]
    return [Meant(None, why="the loss is the cross-entropy of the next token")]


def _datasets(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    entries = value if isinstance(value, list) else [value]
    paths = [one["path"] for one in entries if isinstance(one, Mapping) and isinstance(one.get("path"), str)]
    others = [Meant(None, why="not understood; it is left out", label=f"datasets[{position}].{key}")
              for position, one in enumerate(entries) if isinstance(one, Mapping) for key, inner in one.items()
              if key != "path" and not is_empty(inner) and (key, inner) != ("split", "train")]
    return [*([Meant("dataset", paths)] if paths else [Meant(None, why="no path is given; it is left out")]), *others]


def _order(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    """Which rows come first; KTO takes them as they stand in the file unless told otherwise."""
    if value == "group_by_length":
        return [Meant("group_by_length", True)]
    if value == "sequential":
        return [Meant("disable_shuffling", True)]
    return [Meant(None, why="rows are in a new order in each epoch", is_lost=value != "random")]


_SAME_NAMES: Final = (
    "model_revision", "trust_remote_code", "lora_alpha", "use_rslora", "use_dora", "packing", "padding_free", "output_dir",
    "overwrite_output_dir", "do_train", "do_eval", "do_predict", "eval_strategy", "eval_steps", "eval_delay", "eval_on_start",
    "per_device_eval_batch_size", "learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm",
    "num_train_epochs", "max_steps", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_ratio", "warmup_steps",
    "logging_dir", "logging_strategy", "logging_steps", "logging_first_step",
    "save_strategy", "save_steps", "save_total_limit", "save_only_model", "use_cpu", "seed", "data_seed", "bf16", "fp16", "tf32",
    "gradient_checkpointing", "ddp_backend", "ddp_timeout", "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers",
    "dataloader_drop_last", "dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_pin_memory",
    "dataloader_persistent_workers", "run_name", "disable_tqdm", "load_best_model_at_end", "metric_for_best_model", "greater_is_better",
    "group_by_length", "report_to", "optim", "optim_args", "resume_from_checkpoint", "neftune_noise_alpha", "full_determinism",
    "torch_compile", "torch_compile_backend", "torch_compile_mode", "deepspeed", "fsdp", "fsdp_config", "accelerator_config",
    "push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo", "hub_always_push", "auto_find_batch_size", "label_smoothing_factor",
    "eval_accumulation_steps", "prediction_loss_only", "torch_empty_cache_steps", "batch_eval_metrics",
    "include_num_input_tokens_seen", "save_on_each_node", "restore_callback_states_from_checkpoint", "ignore_data_skip",
)

_KEYS: Final[Mapping[str, str | Means]] = {
    **{name: name for name in _SAME_NAMES}, **PREFERENCE_KEYS, **GRPO_KEYS, **PPO_KEYS,
    **{name: of_batches(name) for name in ("per_device_train_batch_size", "gradient_accumulation_steps")},
    "attn_implementation": _attention, "torch_dtype": _dtype, "dtype": _dtype,
    "use_peft": switch("finetuning_type", "lora"), "lora_r": "lora_rank",
    "lora_target_modules": words("lora_target", {"all-linear": "all"}),
    "lora_modules_to_save": "additional_target", "lora_task_type": nothing("follows from the stage"),
    "load_in_4bit": switch("quantization_bit", 4), "load_in_8bit": switch("quantization_bit", 8),
    "bnb_4bit_quant_type": "quantization_type", "use_bnb_nested_quant": "double_quantization",
    "dataset_name": "dataset", "datasets": _datasets, "dataset_train_split": _split("train"), "dataset_test_split": _split("test"),
    "dataset_streaming": "streaming", "streaming": "streaming", "test_split_size": "val_size",
    "dataset_text_field": _text_field, "dataset_num_proc": "preprocessing_num_workers",
    "max_length": "cutoff_len", "max_seq_length": "cutoff_len",
    "truncation_mode": words("cutoff_policy", {"keep_start": "cut_right", "keep_end": "cut_left"}),
    "packing_strategy": _packing_strategy, "eval_packing": nothing("changes the speed of evaluation only"),
    "completion_only_loss": _answers_only, "assistant_only_loss": _answers_only, "chat_template_path": "template",
    "eos_token": not_here("the tokenizer's own is used"), "pad_token": not_here("the tokenizer's own is used"),
    "loss_type": _loss, "activation_offloading": not_here("activations are recomputed, not moved to the CPU"),
    "shuffle_dataset": nothing("rows are in a new order in each epoch anyway"), "use_liger_kernel": "enable_liger_kernel",
    "gradient_checkpointing_kwargs": arguments("gradient_checkpointing_kwargs", {"use_reentrant": "use_reentrant_gc"}),
    "train_sampling_strategy": _order,
    "remove_unused_columns": nothing("columns that are not read are never kept"), "evaluation_strategy": "eval_strategy",
    "no_cuda": "use_cpu", "save_safetensors": nothing("weights are always safetensors"), "local_rank": nothing("the launcher says it"),
    "log_level": nothing("the log says enough"), "push_to_hub_model_id": "hub_model_id",
}


def _defaults(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """What TRL's script does without being told, where we do otherwise."""
    found: dict[str, Any] = {
        "learning_rate": 2e-5, "per_device_train_batch_size": 8, "lr_scheduler_type": "linear", "cutoff_len": 1024,
        "gradient_checkpointing": True}
    if "max_length" in values and values["max_length"] is None:
        found["cutoff_len"] = 2**24
    if not is_on(values.get("fp16")) and "bf16" not in values and "bfloat16" not in (values.get("dtype"), values.get("torch_dtype")):
        found["bf16"] = True
    if trainer_of(values) == "kto" and is_empty(values.get("train_sampling_strategy")) and not is_on(values.get("group_by_length")):
        found["disable_shuffling"] = True
    if is_on(values.get("use_peft")):
        return {**found, "lora_rank": 16, "lora_alpha": 32.0, "lora_dropout": 0.05, **alignment_defaults(values)}
    return {**found, **alignment_defaults(values), "finetuning_type": "full"}


def _remarks(values: Mapping[str, Any]) -> tuple[str, ...]:
    if is_guessed(values):
        return ("TRL's files do not name their trainer, and several have these keys; they are read as DPO's: for KTO add stage=kto to the "
                "command, for ORPO stage=dpo pref_loss=orpo",)
    if trainer_of(values) != "sft":
        return alignment_remarks(values)
    if any(key in values for key in ("completion_only_loss", "assistant_only_loss")):
        return ()
    return ("assistant_only_loss is not given: TRL then trains every token of rows with `messages` or `text`; here answers are trained, "
            "and with train_on_prompt: true the prompts too",)


TRL: Final = Foreign("trl", "TRL", "a", _KEYS, _defaults, _remarks)
"""TRL's files."""

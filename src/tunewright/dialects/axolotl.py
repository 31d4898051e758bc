"""The keys of axolotl's YAML files (its `utils/schemas` and `core/builders/base.py`, 2026) in our names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tunewright.dialects.axolotl_alignment import (
    ALIGNMENT_KEYS,
    alignment_defaults,
    alignment_remarks,
    dataset_of_answers,
    is_aligned,
)
from tunewright.dialects.spelling import (
    OPTIMIZERS,
    Foreign,
    Means,
    Meant,
    arguments,
    is_empty,
    is_on,
    not_here,
    nothing,
    part_of,
    switch,
    words,
)

_ADAPTERS: Final = ("lora", "qlora")


def _adapter(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    if value not in _ADAPTERS:
        return [Meant(None, why=f"of adapters, only {' and '.join(_ADAPTERS)} are understood")]
    is_quantized = value == "qlora" and "load_in_4bit" not in values and "load_in_8bit" not in values
    return [Meant("finetuning_type", "lora"), *([Meant("quantization_bit", 4)] if is_quantized else [])]


def _linear(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    if not is_on(value) or not is_empty(values.get("lora_target_modules")):
        return [Meant(None, why="changes nothing, and is left out", is_lost=False)]
    return [Meant("lora_target", ["all"])]


def _initial(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    if isinstance(value, str) and value.startswith("pissa"):
        return [Meant("pissa_init", True)]
    return [Meant(None, why="adapters start from zero", is_lost=value is not True)]


def _scheduler(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    return [Meant(None, why="is read together with cosine_min_lr_ratio", is_lost=False)
            if not is_empty(values.get("cosine_min_lr_ratio")) else Meant("lr_scheduler_type", value)]


def _least_rate(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    return [Meant("lr_scheduler_type", "cosine_with_min_lr"), Meant("lr_scheduler_kwargs", {"min_lr_rate": value})]


def _packing(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    """Rows of one pack do not attend to each other in axolotl."""
    return [Meant("packing", value), Meant("neat_packing", True)] if is_on(value) else [Meant("packing", value)]


def _checkpointing(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    if isinstance(value, str) and value.lower() in ("offload", "unsloth"):
        return [Meant("gradient_checkpointing", True), Meant("use_unsloth_gc", True)]
    if isinstance(value, str) and value.lower() not in ("true", "false"):
        return [Meant("gradient_checkpointing", True), Meant(None, why="activations are recomputed, not moved to the disk")]
    return [Meant("gradient_checkpointing", value)]


def _bf16(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    """`auto` turns it on where the device has it."""
    if value == "full":
        return [Meant("pure_bf16", True)]
    return [Meant("bf16", True if value == "auto" else value)]


def _fp16(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    if is_on(value) and not is_empty(values.get("bf16")) and values["bf16"] is not False:
        return [Meant(None, why="bf16 wins over it", is_lost=False)]
    return [Meant("fp16", value)]


def _per_epoch(strategy: str, steps: str) -> Means:
    """So many times an epoch: a fraction of the whole run."""

    def meant(value: Any, values: Mapping[str, Any]) -> list[Meant]:
        try:
            times = float(value) * float(values.get("num_epochs") or 1)
        except (TypeError, ValueError):
            return [Meant(None, why="not a number; it is left out")]
        if times <= 0:
            return [Meant(strategy, "no")]
        return [Meant(strategy, "epoch")] if float(value) == 1 else [Meant(strategy, "steps"), Meant(steps, 1 / times)]

    return meant


def _steps(strategy: str, steps: str) -> Means:
    return lambda value, values: [Meant(strategy, "steps"), Meant(steps, value)]


def _attention(name: str) -> Means:
    return switch("flash_attn", name)


def _template(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    if value == "tokenizer_default" or (isinstance(value, str) and value.startswith("tokenizer_default_fallback")):
        return [Meant("template", "auto")]
    if value == "jinja":
        return [Meant(None, why="is read together with chat_template_jinja", is_lost=False)]
    return [Meant("template", {"llama3": "llama3", "qwen_25": "qwen2.5"}.get(str(value), value))]


def _tracker(name: str) -> Means:
    """Several trackers may be on; the first key that names one names all."""

    def meant(value: Any, values: Mapping[str, Any]) -> list[Meant]:
        trackers = [tracker for key, tracker in _TRACKERS.items() if not is_empty(values.get(key)) and values[key] is not False]
        return [Meant("report_to", trackers)] if name in trackers else [Meant(None, why="is off, and is left out", is_lost=False)]

    return meant


_TRACKERS: Final[Mapping[str, str]] = {
    "wandb_project": "wandb", "use_wandb": "wandb", "use_mlflow": "mlflow", "use_tensorboard": "tensorboard", "use_comet": "comet"}


def _datasets(name: str) -> Means:
    def meant(value: Any, values: Mapping[str, Any]) -> list[Meant]:
        key = "datasets" if name == "dataset" else "test_datasets"
        entries = value if isinstance(value, list) else [value]
        found: list[Any] = []
        others: list[Meant] = []
        for position, entry in enumerate(entries):
            files, unknown = _entry(entry, f"{key}[{position}]", is_aligned(values))
            found += files
            others += unknown
        is_text = [isinstance(one, Mapping) and one.get("formatting") == "text" for one in found]
        stage = [Meant("stage", "pt")] if name == "dataset" and found and all(is_text) and not is_aligned(values) else []
        return [*([Meant(name, found)] if found else []), *stage, *others]

    return meant


def _entry(entry: Any, label: str, has_answers: bool) -> tuple[list[Any], list[Meant]]:
    """One data set as inline mappings, one for each of its files, and what of it is not understood."""
    if isinstance(entry, str):
        return [entry], []
    if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str):
        return [], [Meant(None, why="no path is given; it is left out", label=label)]
    files = entry.get("data_files") or entry["path"]
    layout, read = dataset_of_answers(entry) if has_answers else _layout(entry)
    others = [Meant(None, why="not understood; it is left out", label=f"{label}.{key}") for key, value in entry.items()
              if key not in read and not is_empty(value) and (key, value) not in _SAY_NOTHING]
    return [{"file_name": file, **layout} if layout else file for file in (files if isinstance(files, list) else [files])], others


_SAY_NOTHING: Final = (("split", "train"), ("ds_type", "json"), ("ds_type", "csv"), ("ds_type", "parquet"), ("ds_type", "text"))


def _layout(entry: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """How the rows are understood, and the keys that say so."""
    kind, read = entry.get("type"), {"path", "data_files", "type"}
    if isinstance(kind, Mapping):
        columns = {ours: kind[theirs] for ours, theirs in (
            ("prompt", "field_instruction"), ("query", "field_input"), ("response", "field_output"), ("system", "field_system"))
            if kind.get(theirs)}
        return {"formatting": "alpaca", "columns": columns}, read if set(kind) <= _COLUMN_KEYS else read - {"type"}
    name = str(kind or "").partition(":")[0].partition(".")[0]
    if name == "alpaca":
        return {"formatting": "alpaca"}, read
    if name == "sharegpt":
        return {"formatting": "sharegpt"}, read
    if name == "completion":
        return {"formatting": "text", "columns": {"prompt": entry.get("field") or "text"}}, read | {"field"}
    if name == "chat_template":
        return _conversation(entry), read | {"field_messages", "message_property_mappings", "message_field_role", "message_field_content"}
    return {}, read - ({"type"} if kind else set())


_COLUMN_KEYS: Final = {"field_instruction", "field_input", "field_output", "field_system"}


def _conversation(entry: Mapping[str, Any]) -> dict[str, Any]:
    given = entry.get("message_property_mappings")
    mapped = given if isinstance(given, Mapping) else {}
    role = entry.get("message_field_role") or mapped.get("role") or "role"
    content = entry.get("message_field_content") or mapped.get("content") or "content"
    formatting = "sharegpt" if role == "from" else "openai"
    tags = {"role_tag": role, "content_tag": content} if (role, content) not in (("role", "content"), ("from", "value")) else {}
    columns = {"messages": entry["field_messages"]} if entry.get("field_messages") else {}
    return {"formatting": formatting, **({"columns": columns} if columns else {}), **({"tags": tags} if tags else {})}


_TRACKER_KEYS: Final = ("wandb_entity", "wandb_watch", "wandb_log_model", "wandb_mode", "wandb_run_id", "mlflow_tracking_uri",
                        "mlflow_experiment_name", "comet_workspace", "comet_project_name")
_SAME_NAMES: Final = (
    "learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm",
    "warmup_ratio", "warmup_steps", "max_steps", "output_dir", "seed", "lora_alpha", "loraplus_lr_ratio",
    "loraplus_lr_embedding", "group_by_length", "save_total_limit", "save_only_model", "logging_steps", "load_best_model_at_end",
    "metric_for_best_model", "greater_is_better", "early_stopping_patience", "trust_remote_code", "lr_scheduler_kwargs", "optim_args",
    "tf32", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor", "torch_compile", "ddp_timeout",
    "ddp_find_unused_parameters", "resume_from_checkpoint", "streaming", "deepspeed", "fsdp", "fsdp_config", "hub_model_id",
    "hub_strategy", "neftune_noise_alpha", "use_dora", "use_rslora", "save_strategy", "eval_strategy", "default_system",
)

_KEYS: Final[Mapping[str, str | Means]] = {
    **{name: name for name in _SAME_NAMES}, **ALIGNMENT_KEYS,
    "base_model": "model_name_or_path", "revision_of_model": "model_revision", "tokenizer_config": "tokenizer_name_or_path",
    "base_model_config": nothing("the model's own configuration is used"), "model_type": nothing("the class follows from the model"),
    "tokenizer_type": nothing("the class follows from the model"), "is_llama_derived_model": nothing("follows from the model"),
    "is_mistral_derived_model": nothing("follows from the model"), "strict": nothing("settings are always checked"),
    "datasets": _datasets("dataset"), "test_datasets": _datasets("eval_dataset"), "val_set_size": "val_size",
    "sequence_len": "cutoff_len", "dataset_prepared_path": "data_cache_dir", "dataset_processes": "preprocessing_num_workers",
    "eval_batch_size": "per_device_eval_batch_size", "num_epochs": "num_train_epochs",
    "adapter": _adapter, "load_in_4bit": switch("quantization_bit", 4), "load_in_8bit": switch("quantization_bit", 8),
    "lora_r": "lora_rank", "lora_target_modules": words("lora_target", {"all-linear": "all"}), "lora_target_linear": _linear,
    "lora_modules_to_save": "additional_target", "lora_model_dir": "adapter_name_or_path", "peft_use_dora": "use_dora",
    "peft_use_rslora": "use_rslora", "peft_init_lora_weights": _initial, "lora_fan_in_fan_out": not_here("follows from the model here"),
    "optimizer": words("optim", OPTIMIZERS), "lr_scheduler": _scheduler, "cosine_min_lr_ratio": _least_rate,
    "sample_packing": _packing, "eval_sample_packing": nothing("changes the speed of evaluation only"),
    "pad_to_sequence_len": nothing("changes memory only"), "train_on_inputs": "train_on_prompt",
    "chat_template": _template, "chat_template_jinja": "template", "noisy_embedding_alpha": "neftune_noise_alpha",
    "gradient_checkpointing": _checkpointing,
    "gradient_checkpointing_kwargs": arguments("gradient_checkpointing_kwargs", {"use_reentrant": "use_reentrant_gc"}),
    "bf16": _bf16, "bfloat16": "pure_bf16", "fp16": _fp16, "flash_attention": _attention("fa2"), "sdp_attention": _attention("sdpa"),
    "eager_attention": _attention("disabled"), "xformers_attention": not_here("attention is sdpa, fa2 or eager here"),
    "attn_implementation": words("flash_attn", {"eager": "disabled", "flash_attention_2": "fa2"}),
    "saves_per_epoch": _per_epoch("save_strategy", "save_steps"), "evals_per_epoch": _per_epoch("eval_strategy", "eval_steps"),
    "save_steps": _steps("save_strategy", "save_steps"), "eval_steps": _steps("eval_strategy", "eval_steps"),
    "evaluation_strategy": "eval_strategy", "auto_resume_from_checkpoints": switch("resume_from_checkpoint", "auto"),
    "tokens": "add_tokens", "debug": not_here("the log says enough"), "local_rank": nothing("the launcher says it"),
    **{key: _tracker(tracker) for key, tracker in _TRACKERS.items()},
    "wandb_name": "run_name", "mlflow_run_name": "run_name", "save_safetensors": nothing("weights are always safetensors"),
    **{key: part_of("the tracker's environment variables, which say it here") for key in _TRACKER_KEYS},
}


def _defaults(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """What axolotl does without being told, where we do otherwise."""
    found: dict[str, Any] = {"per_device_train_batch_size": 1, "num_train_epochs": 1.0, "cutoff_len": 512, "save_total_limit": 4,
                             "per_device_eval_batch_size": values.get("micro_batch_size") or 1}
    if is_empty(values.get("adapter")):
        found["finetuning_type"] = "full"
    if all(is_empty(values.get(key)) for key in ("save_steps", "saves_per_epoch", "save_strategy")):
        found["save_strategy"] = "epoch"
    if is_empty(values.get("warmup_steps")) and is_empty(values.get("warmup_ratio")):
        found["warmup_ratio"] = 0.03
    return {**found, **alignment_defaults(values)}


AXOLOTL: Final = Foreign("axolotl", "axolotl", "an", _KEYS, _defaults, alignment_remarks)
"""axolotl's files."""

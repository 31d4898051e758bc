"""The vocabulary of MindSpeed-LLM's FSDP2 trainer (document 004): YAML with one section per group of arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tunewright.dialects.dialect import Dialect, Restructured, Written
from tunewright.dialects.paired import neat_packing

_MODEL = (
    "model_name_or_path", "model_id", "init_model_with_meta_device", "trust_remote_code", "train_from_scratch",
    "tokenizer_name_or_path", "cache_dir", "use_fast_tokenizer", "resize_vocab", "split_special_tokens", "add_tokens",
    "add_special_tokens", "new_special_tokens_config", "init_special_tokens", "model_revision", "hf_hub_token", "ms_hub_token",
    "om_hub_token", "quant_recipe", "quant_format", "quant_block_size", "quant_apply_modules", "quant_ignored_modules",
    "converters",
)
_DATA = (
    "template", "dataset", "eval_dataset", "dataset_dir", "cutoff_len", "train_on_prompt", "mask_history", "streaming",
    "buffer_size", "mix_strategy", "interleave_probs", "overwrite_cache", "preprocessing_batch_size",
    "preprocessing_num_workers", "max_samples", "eval_num_beams", "ignore_pad_token_for_loss", "val_size",
    "eval_on_each_dataset", "packing", "neat_packing", "tool_format", "default_system", "enable_thinking", "tokenized_path",
    "data_shared_file_system", "data_manager_type", "split", "create_attention_mask_in_dataloader", "no_shared_storage",
    "dataloader_type",
)
_PARALLEL = (
    "tp_size", "fsdp_size", "recompute", "ep_size", "ep_fsdp_size", "cp_size", "cp_type", "fsdp_modules", "ignored_modules",
    "reshard_after_forward", "shard_placement_fn", "tp_colwise", "tp_rowwise", "ep_modules", "ep_fsdp_modules", "ep_dispatcher",
    "recompute_modules", "param_dtype", "reduce_dtype", "num_to_forward_prefetch", "num_to_backward_prefetch",
)
_TRAINING = (
    "output_dir", "optimizer", "lr", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm",
    "lr_scheduler_type", "warmup_ratio", "min_lr", "num_train_epochs", "max_steps", "gradient_accumulation_steps",
    "disable_shuffling", "seed", "save_steps", "save_total_limit", "resume_from_checkpoint", "logging_steps", "stage",
    "calculate_per_token_loss", "chunk_loss_size", "dataloader_num_workers", "dataloader_prefetch_factor",
    "dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_drop_last", "per_device_train_batch_size",
    "gdn_chunk_size", "save_only_model", "save_async", "save_epochs", "save_hf_weights",
)
_FUSED = (
    "use_fused_rmsnorm", "moe_grouped_gemm", "use_fused_rotary_pos_emb", "use_flash_attn", "use_triton_gdn",
)
_PROFILING = (
    "profile", "profile_step_start", "profile_step_end", "profile_ranks", "profile_level", "profile_export_type",
    "profile_data_simplification", "profile_with_cpu", "profile_with_stack", "profile_with_memory", "profile_record_shapes",
    "profile_save_path",
)

_SECTIONS: Final = (
    (("model",), _MODEL), (("data",), _DATA), (("parallel",), _PARALLEL), (("training",), _TRAINING),
    (("optimization", "model"), _FUSED), (("profiling", "training"), _PROFILING))
"""The sections in which the names of each group of the document may stand, the usual one first."""


def restructure(values: Mapping[str, Written]) -> Restructured:
    """The document: `neat_packing` sets packing."""
    return neat_packing(values, "MindSpeed-LLM")


MINDSPEED_FSDP2: Final = Dialect(
    "mindspeed_fsdp2", restructure, sections={name: sections for sections, names in _SECTIONS for name in names})

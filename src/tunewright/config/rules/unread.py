"""Values that the chosen run never reads: a note for each one that the user wrote."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from tunewright.config.data import named_sets
from tunewright.config.derive import packs
from tunewright.config.rules.alignment import has_reference
from tunewright.config.rules.rule import OF_ANSWERS, ONLINE, Broken, Case, Purpose, Rule
from tunewright.config.run import RunConfig
from tunewright.config.table import table


@dataclass(frozen=True, slots=True)
class Unread:
    """The fields that are not read when `when` holds, and why; told for these purposes."""

    fields: tuple[str, ...]
    why: str
    when: Callable[[RunConfig], bool]
    purposes: tuple[Purpose, ...] = ("train",)


_LORA = ("lora_rank", "lora_alpha", "lora_dropout", "lora_target", "lora_bias", "additional_target", "pissa_iter",
         "loraplus_lr_embedding", "lora_fan_in_fan_out", "plot_lora_matrix", "merge_lora_and_save")
_GALORE = ("galore_target", "galore_rank", "galore_update_interval", "galore_scale", "galore_proj_type")
_BADAM = ("badam_mode", "badam_start_block", "badam_switch_mode", "badam_switch_interval", "badam_update_ratio", "badam_mask_mode",
          "badam_verbose")
_SAMPLING = ("temperature", "top_p", "top_k")
_GENERATION = (*_SAMPLING, "do_sample", "num_beams", "max_new_tokens", "max_length", "repetition_penalty", "length_penalty",
               "use_cache", "generation_config")
_OF_THE_ADAPTER = ("lora_rank", "lora_alpha", "lora_dropout", "lora_target", "lora_bias", "additional_target", "use_rslora", "use_dora",
                   "lora_fan_in_fan_out")
_GENERATES: tuple[Purpose, ...] = ("train", "predict", "chat")
_OF_SEVERAL = ("ddp_backend", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_find_unused_parameters", "reduce_dtype",
               "log_level_replica", "log_on_each_node")
_PROFILE = ("profile_step_start", "profile_step_end", "profile_ranks", "profile_with_cpu", "profile_with_stack", "profile_with_memory",
            "profile_record_shapes", "profile_save_path")
_OF_TEXT = ("prompt_column", "cutoff_policy", "preprocessing_num_workers", "preprocessing_batch_size", "overwrite_cache", "data_cache_dir",
            "tokenized_path")
_MEASURED: tuple[Purpose, ...] = ("train", "eval")
_READ_DATA: tuple[Purpose, ...] = ("train", "eval", "preview")
_KERNELS = ("torch_compile", "torch_compile_backend", "torch_compile_mode", "use_unsloth_gc", "enable_liger_kernel", "liger_kernel_config",
            "use_fused_rmsnorm", "use_fused_rotary_pos_emb", "moe_grouped_gemm", "gdn_chunk_size", "use_triton_gdn")
_PPO = ("ppo_buffer_size", "ppo_epochs", "ppo_score_norm", "ppo_target", "ppo_whiten_rewards", "ppo_init_kl_coef", "ppo_adap_kl_ctrl",
        "ppo_horizon", "ppo_gamma", "ppo_lam", "ppo_cliprange", "ppo_cliprange_value", "ppo_vf_coef")
_GRPO = ("num_generations", "num_iterations", "grpo_loss_type", "epsilon", "epsilon_high", "grpo_beta", "kl_estimator", "scale_rewards",
         "importance_sampling_level")
_ONLINE = ("reward_funcs", "reward_weights", "missing_eos_penalty", "rollout_batch_size", "sample_log_steps")
_REFERENCE = ("ref_model", "ref_model_adapters", "ref_model_quantization_bit")
_FREEZE = ("freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules")


def _evaluates(run: RunConfig) -> bool:
    """Whether there are evaluations before and during training."""
    return run.evaluation.eval_strategy != "no" or run.evaluation.eval_on_start


def _quantises(run: RunConfig) -> bool:
    """Whether some model of the run is quantised while it is loaded."""
    bits = (run.quantization.quantization_bit, run.alignment.ref_model_quantization_bit, run.alignment.reward_model_quantization_bit)
    return any(one is not None for one in bits)


def _may_recompute(run: RunConfig) -> bool:
    return run.precision.gradient_checkpointing or run.precision.gradient_checkpointing_auto


def _is_here(run: RunConfig) -> bool:
    """Whether model, tokenizer and adapters are directories of this machine."""
    named = [run.model.model_name_or_path or "", *run.model.adapter_name_or_path]
    named += [run.tokenizer.tokenizer_name_or_path] if run.tokenizer.tokenizer_name_or_path else []
    return all(name == "demo" or os.path.isdir(os.path.expanduser(name)) for name in named if name)


UNREAD = (
    Unread(("quantization_method", "quantization_type", "double_quantization", "compute_dtype", "quantization_device_map"),
           "quantization_bit is absent", lambda run: not _quantises(run)),
    Unread(("quantization_type", "double_quantization", "compute_dtype"), "weights have 8 bits",
           lambda run: run.quantization.quantization_bit == 8, _GENERATES),
    Unread(_LORA, "finetuning_type is not lora", lambda run: run.tuning.finetuning_type != "lora"),
    Unread(_FREEZE, "finetuning_type is not freeze",
           lambda run: run.tuning.finetuning_type != "freeze" and not run.freeze.use_llama_pro),
    Unread(("pissa_iter",), "pissa_init is off", lambda run: not run.lora.pissa_init),
    Unread(("loraplus_lr_embedding",), "loraplus_lr_ratio is absent", lambda run: run.lora.loraplus_lr_ratio is None),
    Unread(("create_new_adapter", "adapter_folder"), "adapter_name_or_path is absent",
           lambda run: not run.model.adapter_name_or_path),
    Unread(("template", "template_type", "tool_format", "template_date", "default_system", "enable_thinking", "query_column",
            "response_column", "history_column"),
           "stage is pt", lambda run: run.run.stage == "pt"),
    Unread(("pref_loss", "pref_ftx", "dpo_label_smoothing"), "stage is not dpo", lambda run: run.run.stage != "dpo", _MEASURED),
    Unread(("pref_beta",), "stage is neither dpo nor kto", lambda run: run.run.stage not in ("dpo", "kto"), _MEASURED),
    Unread(("simpo_gamma",), "pref_loss is not simpo", lambda run: run.run.stage != "dpo" or run.alignment.pref_loss != "simpo", _MEASURED),
    Unread(("kto_chosen_weight", "kto_rejected_weight"), "stage is not kto", lambda run: run.run.stage != "kto", _MEASURED),
    Unread((*_REFERENCE, "precompute_ref_log_probs"), "nothing is compared with a reference model",
           lambda run: not has_reference(run), _MEASURED),
    Unread(("precompute_ref_log_probs",), "answers are new in each step", lambda run: run.run.stage in ("ppo", "grpo")),
    Unread(("precompute_ref_log_probs",), "an evaluation asks the reference once", lambda run: True, ("eval",)),
    Unread(("reward_model", "reward_model_adapters", "reward_model_quantization_bit", "reward_model_type"), "stage is neither ppo nor grpo",
           lambda run: run.run.stage not in ("ppo", "grpo"), _MEASURED),
    Unread(("reward_model_adapters", "reward_model_quantization_bit"), "reward_model_type is not full",
           lambda run: run.run.stage in ("ppo", "grpo") and run.alignment.reward_model is not None
           and run.alignment.reward_model_type != "full", _MEASURED),
    Unread(_PPO, "stage is not ppo", lambda run: run.run.stage != "ppo", _MEASURED),
    Unread(_GRPO, "stage is not grpo", lambda run: run.run.stage != "grpo", _MEASURED),
    Unread(_ONLINE, "stage is neither ppo nor grpo", lambda run: run.run.stage not in ONLINE, _MEASURED),
    Unread(_PPO, "an evaluation measures rewards alone", lambda run: run.run.stage == "ppo", ("eval",)),
    Unread((*_GRPO, "sample_log_steps"), "an evaluation measures rewards alone", lambda run: run.run.stage == "grpo", ("eval",)),
    Unread(_REFERENCE, "an evaluation measures rewards alone", lambda run: run.run.stage in ONLINE and has_reference(run), ("eval",)),
    Unread(("ppo_target", "ppo_horizon"), "ppo_adap_kl_ctrl is off",
           lambda run: run.run.stage == "ppo" and not run.alignment.ppo_adap_kl_ctrl),
    Unread(("ppo_target", "ppo_horizon"), "ppo_init_kl_coef is 0, and stays so",
           lambda run: run.run.stage == "ppo" and run.alignment.ppo_init_kl_coef == 0),
    Unread(("ppo_cliprange", "ppo_cliprange_value"), "there is one update in each step, before which no ratio and no value has moved",
           lambda run: run.run.stage == "ppo" and run.alignment.ppo_epochs == run.alignment.ppo_buffer_size == 1
           and run.lora.lora_dropout == 0),
    Unread(("epsilon", "epsilon_high", "importance_sampling_level"), "there is one update in each step, whose ratios are all 1",
           lambda run: run.run.stage == "grpo" and run.alignment.num_iterations == 1),
    Unread(("kl_estimator",), "grpo_beta is 0", lambda run: run.run.stage == "grpo" and run.alignment.grpo_beta == 0),
    Unread(("moe_aux_loss_coef",), "only training reads it", lambda run: True, ("eval", "predict", "chat")),
    Unread(("compute_accuracy",), "rewards are compared, not tokens", lambda run: run.run.stage in OF_ANSWERS, _MEASURED),
    Unread(("buffer_size",), "streaming is off", lambda run: not run.data.streaming),
    Unread(("buffer_size",), "disable_shuffling is on", lambda run: run.batching.disable_shuffling),
    Unread(("mix_strategy", "interleave_probs"), "there is one data set", lambda run: len(run.data.dataset) == 1),
    Unread(("eval_on_each_dataset",), "there are no several evaluation sets", lambda run: len(named_sets(run.data.eval_dataset)) < 2,
           ("train", "eval")),
    Unread(("preprocessing_num_workers", "overwrite_cache", "data_cache_dir"), "streaming is on, and nothing else is tokenised beforehand",
           lambda run: run.data.streaming and not run.data.eval_dataset),
    Unread(("split",), "data_manager_type is lf", lambda run: run.data.data_manager_type == "lf", _READ_DATA),
    Unread(_OF_TEXT, "data_manager_type is mg, and tokens are read as they are",
           lambda run: run.data.data_manager_type == "mg", _READ_DATA),
    Unread(("packing",), "data_manager_type is mg, which always lays documents end to end",
           lambda run: run.data.data_manager_type == "mg" and run.data.packing is False, _READ_DATA),
    Unread(("split_special_tokens",), "conversations always split them", lambda run: run.run.stage != "pt"),
    Unread(("add_special_tokens",), "new_special_tokens_config wins",
           lambda run: run.tokenizer.new_special_tokens_config is not None, _GENERATES),
    Unread(("ignore_pad_token_for_loss",), "rows are laid end to end, without padding", lambda run: _is_laid_flat(run)),
    Unread(("ignore_pad_token_for_loss",), "a batch of one row has no padding",
           lambda run: run.batching.per_device_train_batch_size == 1 and run.batching.micro_batch_tokens is None),
    Unread(("neat_packing",), "packing is off",
           lambda run: not packs(run)),
    Unread(("group_by_length", "sortish_sampler", "padding_free"), "packing is on", lambda run: run.data.packing is True),
    Unread(("warmup_ratio",), "warmup_steps wins", lambda run: run.schedule.warmup_steps > 0),
    Unread(("warmup_ratio", "warmup_steps"), "the schedule `constant` has no warm-up",
           lambda run: run.schedule.lr_scheduler_type == "constant"),
    Unread(("num_train_epochs",), "max_steps wins", lambda run: run.batching.max_steps > 0),
    Unread(("adam_beta1", "adam_beta2", "adam_epsilon"), "optim is adafactor", lambda run: run.optimizer.optim == "adafactor"),
    Unread(("save_steps",), "save_strategy is not steps", lambda run: run.checkpoints.save_strategy != "steps"),
    Unread(("eval_steps",), "eval_strategy is not steps", lambda run: run.evaluation.eval_strategy != "steps"),
    Unread(("eval_delay",), "eval_strategy is no", lambda run: run.evaluation.eval_strategy == "no"),
    Unread(("logging_steps",), "logging_strategy is not steps", lambda run: run.logging.logging_strategy != "steps"),
    Unread(("early_stopping_threshold",), "early_stopping_patience is absent",
           lambda run: run.checkpoints.early_stopping_patience is None),
    Unread(("metric_for_best_model", "greater_is_better"), "neither load_best_model_at_end nor early stopping is on",
           lambda run: not run.checkpoints.load_best_model_at_end and run.checkpoints.early_stopping_patience is None),
    Unread(("use_reentrant_gc",), "gradient_checkpointing is off", lambda run: not _may_recompute(run)),
    Unread(("use_reentrant_gc",), "modules that recompute_modules names never take the reentrant form",
           lambda run: run.precision.recompute_modules != table()["recompute_modules"].param.default),
    Unread(("gradient_checkpointing_auto",), "gradient_checkpointing is on", lambda run: run.precision.gradient_checkpointing),
    Unread(("use_unsloth_gc",), "gradient_checkpointing is off",
           lambda run: not run.precision.gradient_checkpointing and not run.precision.gradient_checkpointing_auto),
    Unread(("use_unsloth_gc",), "modules that recompute_modules names keep their inputs where they are",
           lambda run: run.precision.recompute_modules != table()["recompute_modules"].param.default),
    Unread(("liger_kernel_config",), "enable_liger_kernel is off", lambda run: not run.kernels.enable_liger_kernel),
    Unread(("use_fused_rmsnorm",), "torch_compile leaves norms to the compiler", lambda run: run.kernels.compiles),
    Unread(_KERNELS, "only training reads it", lambda run: True, ("eval", "predict", "chat")),
    Unread(_KERNELS, "do_train is off", lambda run: not run.run.do_train),
    Unread(("logging_dir", "run_name"), "report_to does not name tensorboard", lambda run: "tensorboard" not in run.logging.report_to),
    Unread(("data_seed",), "disable_shuffling is on", lambda run: run.batching.disable_shuffling),
    Unread(("dataloader_pin_memory",), "use_cpu is on", lambda run: run.run.use_cpu),
    Unread(("save_epochs",), "save_strategy is not steps", lambda run: run.checkpoints.save_strategy != "steps"),
    Unread(("upcast_layernorm",), "pure_bf16 is off, so they are in float32 anyhow", lambda run: not run.precision.pure_bf16),
    Unread(("bf16_full_eval", "fp16_full_eval", "per_device_eval_batch_size", "eval_dataset"), "nothing is evaluated or predicted",
           lambda run: not (_evaluates(run) or run.run.do_eval or run.run.do_predict)),
    Unread(_OF_SEVERAL, "num_processes is 1", lambda run: run.run.num_processes == 1),
    Unread(_PROFILE, "profile is off", lambda run: not run.profiling.profile),
    Unread(("hub_model_id", "hub_strategy", "hub_always_push"), "push_to_hub is off", lambda run: not run.hub.push_to_hub),
    Unread(("hub_private_repo",), "push_to_hub is off, and export_hub_model_id is absent",
           lambda run: not run.hub.push_to_hub and not (run.export.merge_lora_and_save and run.export.export_hub_model_id)),
    Unread(("push_to_hub", "merge_lora_and_save"), "do_train is off", lambda run: not run.run.do_train),
    Unread(("export_dir", "export_size", "export_dtype", "export_device", "export_onnx", "export_hub_model_id"),
           "merge_lora_and_save is off, and `export` has not begun",
           lambda run: not run.export.merge_lora_and_save),
    Unread(("merge_lora", "auto_merge_weights"), "the model that was trained answers as it is", lambda run: run.run.do_train),
    Unread(("infer_dtype",), "the model that was trained answers as it is, and is not exported in it",
           lambda run: run.run.do_train and not (run.export.merge_lora_and_save and run.export.export_dtype == "auto")),
    Unread(("adam_beta1", "adam_beta2", "adam_epsilon"), "the optimizer has none; optim_args takes what it has",
           lambda run: run.optimizer.optim in ("sgd", "adagrad", "rmsprop") or run.optimizer.optim.startswith("rmsprop_bnb")),
    Unread(("adam_epsilon",), "Lion has no epsilon", lambda run: "lion" in run.optimizer.optim),
    Unread(_OF_THE_ADAPTER, "the given adapter is continued, and has its own", lambda run: bool(
        run.run.do_train and run.model.adapter_name_or_path and not run.lora.create_new_adapter)),
    Unread(("model_revision", "cache_dir"), "nothing comes from a hub", _is_here, ("train", "eval", "predict", "chat")),
    Unread(("dataloader_timeout_s",), "dataloader_num_workers is 0", lambda run: run.batching.dataloader_num_workers == 0),
    Unread(("compute_accuracy",), "nothing is evaluated", lambda run: not _evaluates(run) and not run.run.do_eval),
    Unread(("predict_with_generate",), "nothing is evaluated while it trains, and do_eval measures the loss",
           lambda run: not _evaluates(run) and not run.run.do_predict),
    Unread(("predict_with_generate",), "`eval` measures the loss; `predict` generates answers", lambda run: True, ("eval",)),
    Unread(_GENERATION, "`eval` measures the loss; `predict` generates answers", lambda run: run.run.stage not in ONLINE, ("eval",)),
    Unread(("compute_accuracy",), "answers are scored as texts", lambda run: True, ("predict",)),
    Unread(("bf16", "fp16"), "answers are generated in infer_dtype", lambda run: run.quantization.quantization_bit is None,
           ("predict", "chat")),
    Unread(_GALORE, "use_galore is off", lambda run: not run.optimizer.use_galore),
    Unread(_BADAM, "use_badam is off", lambda run: not run.optimizer.use_badam),
    Unread(("badam_start_block", "badam_switch_mode"), "badam_mode is ratio", lambda run: run.optimizer.badam_mode == "ratio"),
    Unread(("badam_update_ratio", "badam_mask_mode"), "badam_mode is layer", lambda run: run.optimizer.badam_mode == "layer"),
    Unread(("min_lr",), "lr_scheduler_type is not cosine", lambda run: run.schedule.lr_scheduler_type != "cosine"),
    Unread(_GENERATION, "nothing is generated, because predict_with_generate and do_predict are off",
           lambda run: not run.evaluation.predict_with_generate and not run.run.do_predict and run.run.stage not in ONLINE),
    Unread(_SAMPLING, "do_sample is off",
           lambda run: not run.generation.do_sample and not run.generation.generation_config, _GENERATES),
    Unread(("length_penalty",), "num_beams is 1, and only beam search reads it",
           lambda run: run.generation.num_beams == 1 and not run.generation.generation_config, _GENERATES),
)


def _is_laid_flat(run: RunConfig) -> bool:
    return not run.model.shift_attn and (run.data.neat_packing if packs(run) else run.batching.padding_free is True)


def never_read(case: Case) -> list[Broken]:
    """The fields that were written with another value than their default, and that nothing reads."""
    found: dict[str, Broken] = {}
    for entry in UNREAD:
        if case.purpose in entry.purposes and entry.when(case.run):
            for field in entry.fields:
                if field in case.given and field not in found and _differs(case.run, field):
                    found[field] = Broken(field, f"is not read by this run: {entry.why}")
    return list(found.values())


def _differs(run: RunConfig, field: str) -> bool:
    row = table()[field]
    return bool(vars(vars(run)[row.group])[field] != row.param.default)


RULES = (
    Rule("never-read", tuple(dict.fromkeys(field for entry in UNREAD for field in entry.fields)), never_read,
         purposes=("train", "eval", "predict", "chat", "preview"), is_error=False),
)

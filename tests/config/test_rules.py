"""Every rule between parameters: a run that breaks it and nothing else, and a near one that keeps it. Worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunewright.config import checks
from tunewright.config.checks import Context
from tunewright.config.origin import Origin
from tunewright.config.rules.rule import PURPOSES
from tunewright.config.rules.unread import UNREAD
from tunewright.config.table import build, table

FULL = {"model_name_or_path": "demo", "dataset": ("d",), "output_dir": "out"}

ANSWERS = {"do_predict": True, "val_size": 0.1}

CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("two-half-formats", {"fp16": True, "pure_bf16": True}, {"bf16": True, "pure_bf16": True}),
    ("fp16-on-cpu", {"fp16": True, "use_cpu": True}, {"bf16": True, "use_cpu": True}),
    ("step-count-not-whole", {"logging_steps": 1.5}, {"logging_steps": 0.5}),
    ("warmup-longer-than-run", {"warmup_steps": 11, "max_steps": 10}, {"warmup_steps": 10, "max_steps": 10}),
    ("warmup-is-the-whole-run", {"warmup_ratio": 1.0}, {"warmup_ratio": 0.99}),
    ("max-steps-is-zero", {"max_steps": 0}, {"max_steps": -1}),
    ("huge-learning-rate", {"learning_rate": 1.5}, {"learning_rate": 1.0}),
    ("evaluation-without-data", {"eval_strategy": "epoch"}, {"eval_strategy": "epoch", "val_size": 5.0}),
    ("eval-on-start-without-data", {"eval_on_start": True}, {"eval_on_start": True, "eval_dataset": ("e",)}),
    ("best-model-without-evaluation", {"load_best_model_at_end": True},
     {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 100.0, "val_size": 0.1}),
    ("early-stopping-without-evaluation", {"early_stopping_patience": 1},
     {"early_stopping_patience": 1, "eval_strategy": "epoch", "save_strategy": "epoch", "val_size": 0.1, "load_best_model_at_end": True}),
    ("early-stopping-without-best", {"early_stopping_patience": 1, "eval_strategy": "epoch", "val_size": 0.1}, {}),
    ("unknown-metric", {"metric_for_best_model": "eval_acuracy"}, {"metric_for_best_model": "accuracy", "compute_accuracy": True}),
    ("greater-loss", {"greater_is_better": True}, {"greater_is_better": False}),
    ("generation-in-pretraining", {"predict_with_generate": True, "eval_strategy": "epoch", "stage": "pt", "val_size": 0.1},
     {"predict_with_generate": True, "val_size": 0.1}),
    ("generation-in-pretraining", {"do_predict": True, "stage": "pt", "val_size": 0.1}, {"do_predict": True, "val_size": 0.1}),
    ("generation-in-pretraining", {"predict_with_generate": True, "eval_strategy": "epoch", "stage": "rm", "val_size": 0.1},
     {"do_predict": True, "stage": "rm", "val_size": 0.1}),
    ("accuracy-with-generation", {"predict_with_generate": True, "compute_accuracy": True, "val_size": 0.1}, {"compute_accuracy": True}),
    ("generation-without-data", {"predict_with_generate": True}, {"predict_with_generate": True, "eval_dataset": ("e",)}),
    ("prediction-from-tokens", {"tokenized_path": "t", "do_predict": True}, {"tokenized_path": "t", "do_eval": True}),
    ("prediction-from-tokens", {"tokenized_path": "t", "predict_with_generate": True, "eval_strategy": "epoch"},
     {"tokenized_path": "t", "eval_strategy": "epoch"}),
    ("val-size-not-whole", {"val_size": 1.5}, {"val_size": 2.0}),
    ("two-evaluation-sets", {"val_size": 0.1, "eval_dataset": ("e",)}, {"val_size": 0.1}),
    ("val-size-without-dataset", {"val_size": 0.1, "dataset": (), "do_train": False, "do_eval": True}, {"val_size": 0.1}),
    ("unpinned-code", {"model_name_or_path": "org/name", "trust_remote_code": True},
     {"model_name_or_path": "org/name", "trust_remote_code": True, "model_revision": "a" * 40}),
    ("held-back-in-vain", {"val_size": 0.1}, {"val_size": 0.1, "do_eval": True}),
    ("prompt-with-masked-history", {"train_on_prompt": True, "mask_history": True}, {"train_on_prompt": True}),
    ("conversation-masks-in-pretraining", {"mask_history": True, "stage": "pt"}, {"mask_history": True}),
    ("packed-answers", {"packing": True, "stage": "dpo"}, {"packing": True}),
    ("split-answers", {"cutoff_policy": "split", "stage": "kto"}, {"cutoff_policy": "split"}),
    ("split-answers", {"cutoff_policy": "split", "stage": "rm"}, {"cutoff_policy": "cut_left", "stage": "rm"}),
    ("stream-of-feedback", {"streaming": True, "stage": "kto", "max_steps": 5}, {"streaming": True, "stage": "dpo", "max_steps": 5}),
    ("lora-reward-without-adapter", {"reward_model": "org/rm", "stage": "ppo", "finetuning_type": "full"},
     {"reward_model": "org/rm", "stage": "ppo", "finetuning_type": "full", "reward_model_type": "full"}),
    ("reward-model-of-another-type", {"reward_model": "https://host/score", "stage": "ppo"},
     {"reward_model": "https://host/score", "stage": "ppo", "reward_model_type": "api"}),
    ("reward-model-of-another-type", {"reward_model": "saves/rm/lora", "stage": "grpo", "reward_model_type": "api"},
     {"reward_model": "org/rm", "stage": "grpo"}),
    ("reward-model-of-another-type", {"reward_model": "./saves/rm", "stage": "ppo"}, {"reward_model": "org/rm", "stage": "ppo"}),
    ("value-head-taken-for-unused", {"ddp_find_unused_parameters": True, "stage": "rm"}, {"ddp_find_unused_parameters": True}),
    ("split-not-proportions", {"split": "90;10"}, {"split": "949,50,1"}),
    ("nothing-split-off-for-training", {"split": "0,1", "data_manager_type": "mg", "stage": "pt"},
     {"split": "1,1", "data_manager_type": "mg", "stage": "pt"}),
    ("token-files-in-another-stage", {"data_manager_type": "mg"}, {"data_manager_type": "mg", "stage": "pt"}),
    ("rows-held-out-of-token-files", {"data_manager_type": "mg", "stage": "pt", "val_size": 0.1}, {"stage": "pt", "val_size": 0.1}),
    ("two-validation-parts", {"data_manager_type": "mg", "stage": "pt", "split": "9,1", "eval_dataset": ("e",)},
     {"data_manager_type": "mg", "stage": "pt", "split": "9,0,1", "eval_dataset": ("e",)}),
    ("token-files-not-packed", {"data_manager_type": "mg", "stage": "pt", "packing": False},
     {"data_manager_type": "mg", "stage": "pt", "packing": False, "neat_packing": False}),
    ("unusable-token", {"add_tokens": ("<a>", " ")}, {"add_tokens": ("<a>", "a b")}),
    ("token-given-twice", {"add_tokens": ("<a>",), "add_special_tokens": ("<a>",)},
     {"add_tokens": ("<a>",), "add_special_tokens": ("<b>",)}),
    ("description-without-file", {"init_special_tokens": "desc_init"},
     {"init_special_tokens": "desc_init", "new_special_tokens_config": "t.yaml"}),
    ("descriptions-without-use", {"new_special_tokens_config": "t.yaml"},
     {"new_special_tokens_config": "t.yaml", "init_special_tokens": "desc_init_w_noise"}),
    ("tokens-without-rows", {"add_tokens": ("<a>",), "resize_vocab": False}, {"add_tokens": ("<a>",)}),
    ("split-new-tokens", {"stage": "pt", "split_special_tokens": True, "add_special_tokens": ("<a>",)},
     {"stage": "pt", "split_special_tokens": True, "add_tokens": ("<a>",)}),
    ("quirks-refused", {"data_compat": ("val-size-one",)}, {"data_compat": ("listdir-order",)}),
    ("strict-with-quirks", {"data_compat": ("strict", "compat")}, {"data_compat": ("compat", "listdir-order")}),
    ("probabilities-without-turns", {"interleave_probs": (0.5, 0.5), "dataset": ("a", "b")},
     {"interleave_probs": (0.5, 0.5), "dataset": ("a", "b"), "mix_strategy": "interleave_over"}),
    ("probabilities-not-whole", {"interleave_probs": (0.5, 0.6), "dataset": ("a", "b"), "mix_strategy": "interleave_over"},
     {"interleave_probs": (0.3, 0.7), "dataset": ("a", "b"), "mix_strategy": "interleave_over"}),
    ("probabilities-for-other-sets", {"interleave_probs": (0.2, 0.3, 0.5), "dataset": ("a", "b"), "mix_strategy": "interleave_under"},
     {"interleave_probs": (0.2, 0.8), "dataset": ("a", "b"), "mix_strategy": "interleave_under"}),
    ("turns-of-token-files", {"mix_strategy": "interleave_under", "data_manager_type": "mg", "stage": "pt", "dataset": ("a", "b")},
     {"data_manager_type": "mg", "stage": "pt", "dataset": ("a", "b")}),
    ("stream-without-end", {"streaming": True, "max_steps": -1}, {"streaming": True, "max_steps": 5}),
    ("stream-cannot", {"streaming": True, "max_steps": 5, "val_size": 0.1}, {"streaming": True, "max_steps": 5, "val_size": 7.0}),
    ("stream-cannot", {"streaming": True, "max_steps": 5, "tokenized_path": "t"}, {"max_steps": 5, "tokenized_path": "t"}),
    ("stream-cannot", {"streaming": True, "max_steps": 5, "group_by_length": True}, {"max_steps": 5, "group_by_length": True}),
    ("stream-cannot", {"streaming": True, "max_steps": 5, "micro_batch_tokens": 64}, {"max_steps": 5, "micro_batch_tokens": 64}),
    ("stream-cannot", {"streaming": True, "max_steps": 5, "data_manager_type": "mg", "stage": "pt"},
     {"max_steps": 5, "data_manager_type": "mg", "stage": "pt"}),
    ("small-buffer", {"streaming": True, "max_steps": 5, "buffer_size": 3, "per_device_train_batch_size": 4},
     {"streaming": True, "max_steps": 5, "buffer_size": 4, "per_device_train_batch_size": 4}),
    ("mapping-without-file", {"eval_dataset": ({"formatting": "alpaca"},)}, {"eval_dataset": ({"dev": "a", "hard": "b"},)}),
    ("mapping-without-file", {"dataset": ({"formatting": "alpaca"},)}, {"dataset": ({"file_name": "a"},)}),
    ("no-model", {"model_name_or_path": None}, {}),
    ("no-dataset", {"dataset": ()}, {"dataset": (), "do_train": False, "do_eval": True, "eval_dataset": ("e",)}),
    ("no-output", {"output_dir": None}, {}),
    ("nothing-to-do", {"do_train": False}, {"do_train": False, "do_predict": True, "val_size": 0.1}),
    ("extra-work-without-data", {"do_eval": True}, {"do_eval": True, "eval_dataset": ("e",)}),
    ("nothing-trains", {"finetuning_type": "none"}, {"finetuning_type": "none", "do_train": False, "do_eval": True, "val_size": 0.1}),
    ("expanded-blocks-in-full", {"use_llama_pro": True, "finetuning_type": "full"}, {"use_llama_pro": True}),
    ("expanded-blocks-from-the-front", {"use_llama_pro": True, "freeze_trainable_layers": -2}, {"use_llama_pro": True}),
    ("expanded-blocks-of-an-adapter", {"use_llama_pro": True, "adapter_name_or_path": ("org/adapter",)},
     {"use_llama_pro": True, "adapter_name_or_path": ("org/adapter",), "create_new_adapter": True}),
    ("shifted-rows-end-to-end", {"shift_attn": True, "packing": True}, {"shift_attn": True}),
    ("two-attentions", {"shift_attn": True, "flash_attn": "disabled"}, {"shift_attn": True, "flash_attn": "auto"}),
    ("tuning-quantised-weights", {"quantization_bit": 4, "finetuning_type": "full"}, {"quantization_bit": 4}),
    ("numbers-in-quantised-weights", {"quantization_bit": 8, "pissa_init": True}, {"quantization_bit": 8, "use_rslora": True}),
    ("several-adapters-on-quantised-weights", {"quantization_bit": 4, "adapter_name_or_path": ("org/a", "org/b")},
     {"quantization_bit": 4, "adapter_name_or_path": ("org/a",)}),
    ("device-map-of-bytes", {"quantization_bit": 8, "quantization_device_map": "auto", "do_train": False, "do_eval": True, "val_size": 0.1},
     {"quantization_bit": 4, "quantization_device_map": "auto", "do_train": False, "do_eval": True, "val_size": 0.1}),
    ("device-map-in-training", {"quantization_bit": 4, "quantization_device_map": "auto"}, {"quantization_bit": 4}),
    ("half-evaluation-of-quantised-weights", {"quantization_bit": 4, "bf16_full_eval": True, "do_eval": True, "val_size": 0.1},
     {"bf16_full_eval": True, "do_eval": True, "val_size": 0.1}),
    ("scratch-with-adapter", {"train_from_scratch": True}, {"train_from_scratch": True, "finetuning_type": "full"}),
    ("scratch-with-weights", {"train_from_scratch": True, "finetuning_type": "full", "gguf_file": "m.gguf"}, {"gguf_file": "m.gguf"}),
    ("remote-positions", {"rope_scaling": "yarn", "trust_remote_code": True}, {"rope_scaling": "yarn"}),
    ("no-layers", {"finetuning_type": "freeze", "freeze_trainable_layers": 0},
     {"finetuning_type": "freeze", "freeze_trainable_layers": -2}),
    ("broken-pattern", {"additional_target": ("a(",)}, {"lora_target": ("layers\\.[0-9]{1,2}\\.q_proj",)}),
    ("no-target", {"lora_target": ()}, {"lora_target": (), "finetuning_type": "full"}),
    ("adapter-variant-without-lora", {"use_rslora": True, "finetuning_type": "freeze"}, {"use_rslora": True}),
    ("adapter-without-lora", {"adapter_name_or_path": ("org/a",), "finetuning_type": "freeze"}, {"adapter_name_or_path": ("org/a",)}),
    ("conversion-without-pissa", {"pissa_convert": True}, {"pissa_convert": True, "pissa_init": True}),
    ("pissa-iterations", {"pissa_iter": 0}, {"pissa_iter": -1}),
    ("pissa-on-an-adapter", {"pissa_init": True, "adapter_name_or_path": ("org/a",)},
     {"pissa_init": True, "adapter_name_or_path": ("org/a",), "create_new_adapter": True}),
    ("pissa-with-dora", {"pissa_init": True, "pissa_convert": True, "use_dora": True}, {"pissa_init": True, "use_dora": True}),
    ("small-loraplus-ratio", {"loraplus_lr_ratio": 0.5}, {"loraplus_lr_ratio": 16.0}),
    ("path-that-cannot-be", {"dataset_dir": "a/" + "b" * 256}, {"dataset_dir": "a/" + "b" * 255}),
    ("path-that-cannot-be", {"dataset_dir": "a/" + "\u00e9" * 128}, {"dataset_dir": "a/" + "\u00e9" * 127}),
    ("path-that-cannot-be", {"data_cache_dir": "~nobody-of-that-name/x"}, {"data_cache_dir": "~/x"}),
    ("path-that-cannot-be", {"data_cache_dir": "~nobody-of-that-name"}, {"data_cache_dir": "a~nobody"}),
    ("output-is-a-file", {"output_dir": "file"}, {"output_dir": "directory"}),
    ("output-is-the-model", {"output_dir": "directory/../directory", "model_name_or_path": "./directory"},
     {"model_name_or_path": "./directory"}),
    ("model-not-found", {"model_name_or_path": "./absent"}, {"model_name_or_path": "org/model"}),
    ("adapter-not-found", {"adapter_name_or_path": ("./directory",)}, {"adapter_name_or_path": ("adapter",)}),
    ("resume-not-found", {"resume_from_checkpoint": "directory"}, {"resume_from_checkpoint": "checkpoint"}),
    ("template-not-found", {"template": "absent.jinja"}, {"template": "file.jinja"}),
    ("unusable-generation-file", {"generation_config": "https://host/g.json", **ANSWERS}, {"generation_config": "g.json", **ANSWERS}),
    ("generation-file-contradicts", {"generation_config": "g.json", "top_k": 7, **ANSWERS},
     {"generation_config": "g.json", "top_k": 3, **ANSWERS}),
    ("template-date", {"template_date": "soon"}, {"template_date": "2025-01-31"}),
    ("completion-with-template", {"template_type": "completion", "template": "chatml"}, {"template_type": "chat", "template": "chatml"}),
    ("merged-model-is-there", {"merge_lora_and_save": True, "export_dir": "checkpoint"},
     {"merge_lora_and_save": True, "export_dir": "directory"}),
    ("tokenizer-not-found", {"tokenizer_name_or_path": "./absent"}, {"tokenizer_name_or_path": "directory"}),
    ("no-repository", {"push_to_hub": True, "hub_model_id": "a/b/c"}, {"push_to_hub": True, "hub_model_id": "a-team/b_1.0"}),
    ("no-checkpoints-to-upload", {"push_to_hub": True, "hub_strategy": "checkpoint", "save_strategy": "no"},
     {"push_to_hub": True, "hub_strategy": "checkpoint"}),
    ("never-read", {"finetuning_type": "full", "lora_rank": 4}, {"finetuning_type": "full"}),
    ("several-optimizer-methods", {"use_galore": True, "use_badam": True, "finetuning_type": "full"},
     {"use_galore": True, "finetuning_type": "full"}),
    ("optimizer-method-without-adamw", {"use_adam_mini": True, "optim": "paged_adamw_8bit"},
     {"use_adam_mini": True, "optim": "adamw_torch"}),
    ("optimizer-method-with-arguments", {"use_adam_mini": True, "optim_args": {"amsgrad": True}}, {"optim_args": {"amsgrad": True}}),
    ("optimizer-method-with-lora", {"use_badam": True}, {"use_badam": True, "finetuning_type": "freeze"}),
    ("badam-interval-is-zero", {"badam_switch_interval": 0}, {"badam_switch_interval": -1}),
    ("min-lr-above-peak", {"min_lr": 2e-4}, {"min_lr": 1e-4}),
    ("fp32-and-half", {"fp32": True, "bf16": True}, {"fp32": True}),
    ("two-evaluation-formats", {"bf16_full_eval": True, "fp16_full_eval": True, "do_eval": True, "val_size": 0.1},
     {"bf16_full_eval": True, "bf16": True, "do_eval": True, "val_size": 0.1}),
    ("accelerator-only", {"tf32": True, "use_cpu": True}, {"tf32": False, "use_cpu": True}),
    ("prefetch-without-workers", {"dataloader_prefetch_factor": 4}, {"dataloader_prefetch_factor": 4, "dataloader_num_workers": 1}),
    ("grouping-in-file-order", {"disable_shuffling": True, "group_by_length": True}, {"disable_shuffling": True}),
    ("compiled-and-not", {"torch_compile": False, "torch_compile_backend": "eager"}, {"torch_compile_backend": "eager"}),
    ("mode-of-another-backend", {"torch_compile_mode": "default", "torch_compile_backend": "eager"},
     {"torch_compile_mode": "default", "torch_compile_backend": "inductor"}),
    ("compiled-twice", {"enable_liger_kernel": True, "torch_compile": True}, {"enable_liger_kernel": True}),
    ("norm-fast-and-slow", {"use_fused_rmsnorm": True, "slow_paths": ("norm",)}, {"use_fused_rmsnorm": True, "slow_paths": ("mlp",)}),
    ("chunks-of-triton", {"use_triton_gdn": True, "gdn_chunk_size": 32}, {"gdn_chunk_size": 32}),
    ("gpu-only-kernels", {"use_triton_gdn": True, "use_cpu": True}, {"use_triton_gdn": False, "use_cpu": True}),
    ("liger-switches", {"enable_liger_kernel": True, "liger_kernel_config": {"cross_entropy": True}},
     {"enable_liger_kernel": True, "liger_kernel_config": {"cross_entropy": False, "rope": True}}),
    ("liger-switches", {"enable_liger_kernel": True, "liger_kernel_config": {"rope": 1}},
     {"enable_liger_kernel": True, "liger_kernel_config": {"rope": False}}),
    ("two-orders-by-length", {"sortish_sampler": True, "group_by_length": True}, {"sortish_sampler": True}),
    ("tokens-of-new-answers", {"micro_batch_tokens": 64, "stage": "ppo", "reward_model": "org/rm"},
     {"micro_batch_tokens": 64, "stage": "dpo"}),
    ("tokens-of-new-answers", {"micro_batch_tokens": 64, "stage": "grpo", "reward_model": "org/rm"},
     {"stage": "grpo", "reward_model": "org/rm"}),
    ("tokens-and-found-size", {"micro_batch_tokens": 64, "auto_find_batch_size": True}, {"micro_batch_tokens": 64}),
    ("nothing-kept", {"save_hf_weights": False, "save_strategy": "no"}, {"save_hf_weights": False}),
    ("nothing-to-merge", {"merge_lora_and_save": True, "save_hf_weights": False}, {"merge_lora_and_save": True}),
    ("no-profiled-step", {"profile": True, "profile_step_start": 3, "profile_step_end": 3},
     {"profile": True, "profile_step_start": 3, "profile_step_end": 4}),
    ("recomputing-nothing", {"recompute_modules": ("model.layers.{0-3}",)},
     {"recompute_modules": ("model.layers.{0-3}",), "gradient_checkpointing": True}),
    ("profiled-ranks", {"profile": True, "profile_ranks": ("0", "-1")}, {"profile": True, "profile_ranks": ("0", "1")}),
    ("ppo-without-reward-model", {"stage": "ppo"}, {"stage": "ppo", "reward_model": "org/rm"}),
    ("reference-without-use", {"stage": "dpo", "pref_loss": "orpo", "ref_model": "org/m"}, {"stage": "dpo", "ref_model": "org/m"}),
    ("model-parts-without-model", {"stage": "dpo", "ref_model_adapters": ("org/a",)},
     {"stage": "dpo", "ref_model": "org/m", "ref_model_adapters": ("org/a",), "ref_model_quantization_bit": 4}),
    ("supervised-loss-twice", {"stage": "dpo", "pref_loss": "orpo", "pref_ftx": 0.5},
     {"stage": "dpo", "pref_loss": "simpo", "pref_ftx": 0.5}),
    ("smoothing-of-another-loss", {"stage": "dpo", "pref_loss": "hinge", "dpo_label_smoothing": 0.1},
     {"stage": "dpo", "dpo_label_smoothing": 0.1}),
    ("labels-by-chance", {"stage": "dpo", "pref_loss": "robust", "dpo_label_smoothing": 0.5}, {"stage": "dpo", "dpo_label_smoothing": 0.5}),
    ("no-answer-weighs", {"stage": "kto", "kto_chosen_weight": 0.0, "kto_rejected_weight": 0.0},
     {"stage": "kto", "kto_chosen_weight": 0.0}),
    ("reference-is-not-the-start", {"stage": "kto", "pissa_init": True}, {"stage": "kto", "pissa_init": True, "ref_model": "org/m"}),
    ("reference-is-not-the-start", {"stage": "dpo", "lora_bias": "all"}, {"stage": "dpo", "lora_bias": "all", "pref_loss": "simpo"}),
    ("unknown-rows-precomputed", {"stage": "dpo", "streaming": True, "max_steps": 5, "precompute_ref_log_probs": True},
     {"stage": "dpo", "streaming": True, "max_steps": 5}),
    ("grpo-without-rewards", {"stage": "grpo"}, {"stage": "grpo", "reward_funcs": ("r.py:score",)}),
    ("weights-of-other-rewards", {"stage": "grpo", "reward_funcs": ("r.py:score",), "reward_weights": (1.0, 2.0)},
     {"stage": "ppo", "reward_funcs": ("r.py:score",), "reward_model": "org/rm", "reward_weights": (1.0, 2.0)}),
    ("answers-without-chance", {"stage": "grpo", "reward_funcs": ("r.py:score",), "do_sample": False},
     {"stage": "grpo", "reward_funcs": ("r.py:score",)}),
    ("answers-without-chance", {"stage": "ppo", "reward_funcs": ("r.py:score",), "num_beams": 2},
     {"stage": "ppo", "reward_funcs": ("r.py:score",)}),
    ("options-without-known-answers", {"stage": "grpo", "reward_funcs": ("r.py:score",), "auto_find_batch_size": True},
     {"auto_find_batch_size": True}),
    ("options-without-known-answers", {"stage": "ppo", "reward_funcs": ("r.py:score",), "torch_compile": True}, {"torch_compile": True}),
    ("answers-of-another-policy", {"stage": "grpo", "reward_funcs": ("r.py:score",), "temperature": 1.0, "top_p": 1.0},
     {"stage": "grpo", "reward_funcs": ("r.py:score",), "temperature": 1.0, "top_p": 1.0, "top_k": 0}),
    ("answers-of-another-policy",
     {"stage": "ppo", "reward_model": "org/rm", "temperature": 1.0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.2},
     {"stage": "ppo", "reward_model": "org/rm", "temperature": 1.0, "top_p": 1.0, "top_k": 0}),
    ("ratios-with-dropout", {"stage": "ppo", "reward_funcs": ("r.py:score",), "lora_dropout": 0.1}, {"lora_dropout": 0.1}),
    ("token-options-for-answers", {"stage": "dpo", "neftune_noise_alpha": 5.0}, {"neftune_noise_alpha": 5.0}),
    ("token-options-for-answers", {"stage": "kto", "label_smoothing_factor": 0.1}, {"label_smoothing_factor": 0.1}),
    ("token-options-for-answers", {"stage": "dpo", "z_loss_weight": 1e-4}, {"stage": "pt", "z_loss_weight": 1e-4}),
    ("token-options-for-answers", {"stage": "rm", "train_on_prompt": True}, {"train_on_prompt": True}),
    ("token-options-for-answers", {"stage": "dpo", "mask_history": True}, {"mask_history": True}),
    ("routers-out-of-reach", {"moe_aux_loss_coef": 0.1, "gradient_checkpointing": True, "use_reentrant_gc": True},
     {"moe_aux_loss_coef": 0.1, "gradient_checkpointing": True}),
    ("reference-not-found", {"stage": "dpo", "ref_model": "./absent"}, {"stage": "dpo", "ref_model": "./directory"}),
    ("generation-in-pretraining", {"do_predict": True, "stage": "dpo", "val_size": 0.1}, {"do_predict": True, "val_size": 0.1}),
    ("generation-in-pretraining", {"do_predict": True, "stage": "grpo", "reward_funcs": ("r.py:score",), "val_size": 0.1},
     {"do_predict": True, "val_size": 0.1}),
    ("unknown-metric", {"stage": "grpo", "reward_funcs": ("r.py:score",), "metric_for_best_model": "accuracies"},
     {"stage": "grpo", "reward_funcs": ("r.py:score",), "metric_for_best_model": "reward"}),
    ("unknown-metric", {"stage": "dpo", "metric_for_best_model": "accuracies"},
     {"stage": "dpo", "metric_for_best_model": "rewards/accuracies"}),
    ("no-export", {}, {"export_dir": "e"}),
    ("merged-unquantised", {"export_dir": "e", "quantization_bit": 4}, {"export_dir": "e"}),
    ("nothing-to-preview", {"dataset": ()}, {}),
    ("nothing-to-evaluate", {"dataset": ()}, {}),
]

PURPOSE_OF = {"no-export": "export", "merged-unquantised": "export", "nothing-to-preview": "preview", "nothing-to-evaluate": "eval"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    furnish()


def furnish() -> None:
    """Make in the working directory what the cases name."""
    for name in ("file", "file.jinja"):
        Path(name).write_text("x")
    Path("directory").mkdir()
    Path("g.json").write_text('{"top_k": 3, "transformers_version": "5.0"}')
    Path("checkpoint").mkdir()
    Path("checkpoint/manifest.json").write_text("{}")
    Path("adapter").mkdir()
    Path("adapter/adapter_config.json").write_text("{}")


def broken(given: dict[str, Any], purpose: Any) -> list[str]:
    """The rules that a run breaks, errors and notes."""
    origins = {field: Origin("file", "c.yaml:1", field) for field in given}
    return [str(finding.problem.rule) for finding in checks.findings(build({**FULL, **given}), Context(origins, purpose))]


@pytest.mark.parametrize(("rule", "breaks", "keeps"), CASES, ids=[rule for rule, _, _ in CASES])
def test_rule(rule: str, breaks: dict[str, Any], keeps: dict[str, Any]) -> None:
    """The rule is broken, alone or beside notes, and kept by the near run."""
    purpose = PURPOSE_OF.get(rule, "train")
    found = broken(breaks, purpose)
    assert found.count(rule) == 1 and set(found) <= {rule, "never-read", "held-back-in-vain", "answers-of-another-policy"}
    assert rule not in broken(keeps, purpose)


def test_every_rule_has_a_case_and_an_identifier_of_its_own() -> None:
    """No rule without a test."""
    identifiers = [rule.id for rule in checks.RULES]
    assert sorted(identifiers) == sorted({rule for rule, _, _ in CASES}) and len(set(identifiers)) == len(identifiers)
    assert all(field in table() for rule in checks.RULES for field in rule.fields)
    assert all(purpose in PURPOSES for rule in checks.RULES for purpose in rule.purposes)


def test_a_complete_run_breaks_nothing() -> None:
    """The defaults with a model, data and a directory are ready to train."""
    assert broken({}, "train") == []


def test_without_purpose_only_what_always_holds() -> None:
    """A chat needs no data set, a reading without purpose not even a model."""
    assert checks.findings(build({}), Context()) == []
    assert [one.problem.rule for one in checks.findings(build({}), Context(purpose="chat"))] == ["no-model"]


def test_rules_on_wrong_values_are_left_out() -> None:
    """A field that could not be read breaks no further rule."""
    origins = {"fp16": Origin("file", "c.yaml:1", "fp16")}
    run = build({"fp16": True, "use_cpu": True})
    assert checks.findings(run, Context(origins), skip={"use_cpu"}) == []


UNREAD_CASES: list[tuple[str, dict[str, Any]]] = [
    ("quantization_bit is absent", {"quantization_type": "fp4"}),
    ("weights have 8 bits", {"quantization_bit": 8, "double_quantization": False}),
    ("finetuning_type is not lora", {"finetuning_type": "full", "lora_dropout": 0.1}),
    ("finetuning_type is not freeze", {"freeze_trainable_layers": 3}),
    ("pissa_init is off", {"pissa_iter": 3}),
    ("loraplus_lr_ratio is absent", {"loraplus_lr_embedding": 0.001}),
    ("adapter_name_or_path is absent", {"adapter_folder": "x"}),
    ("streaming is off", {"buffer_size": 8}),
    ("reward_model_type is not full", {"stage": "grpo", "reward_model": "org/rm", "reward_model_adapters": ("org/a",)}),
    ("disable_shuffling is on", {"streaming": True, "max_steps": 5, "buffer_size": 64, "disable_shuffling": True}),
    ("stage is not dpo", {"pref_loss": "ipo", "pref_ftx": 0.5, "val_size": 0.1}),
    ("stage is neither dpo nor kto", {"pref_beta": 0.5, "val_size": 0.1}),
    ("pref_loss is not simpo", {"stage": "dpo", "simpo_gamma": 1.0, "val_size": 0.1}),
    ("stage is not kto", {"stage": "dpo", "kto_chosen_weight": 2.0, "val_size": 0.1}),
    ("nothing is compared with a reference model", {"ref_model": "org/m", "val_size": 0.1}),
    ("answers are new in each step", {"stage": "ppo", "reward_model": "org/rm", "precompute_ref_log_probs": True}),
    ("an evaluation asks the reference once", {"stage": "dpo", "precompute_ref_log_probs": True, "val_size": 0.1}),
    ("stage is neither ppo nor grpo", {"stage": "dpo", "reward_model": "org/rm", "val_size": 0.1}),
    ("stage is not ppo", {"stage": "dpo", "ppo_epochs": 2, "val_size": 0.1}),
    ("stage is not grpo", {"stage": "dpo", "num_generations": 4, "val_size": 0.1}),
    ("stage is neither ppo nor grpo", {"stage": "dpo", "reward_funcs": ("r.py:score",), "val_size": 0.1}),
    ("ppo_adap_kl_ctrl is off", {"stage": "ppo", "reward_model": "org/rm", "ppo_adap_kl_ctrl": False, "ppo_target": 3.0}),
    ("ppo_init_kl_coef is 0, and stays so", {"stage": "ppo", "reward_model": "org/rm", "ppo_init_kl_coef": 0.0, "ppo_target": 3.0}),
    ("there is one update in each step, before which no ratio and no value has moved",
     {"stage": "ppo", "reward_model": "org/rm", "ppo_epochs": 1, "ppo_cliprange": 0.1}),
    ("there is one update in each step, whose ratios are all 1", {"stage": "grpo", "reward_funcs": ("r.py:score",), "epsilon": 0.1}),
    ("grpo_beta is 0", {"stage": "grpo", "reward_funcs": ("r.py:score",), "kl_estimator": "k1"}),
    ("an evaluation measures rewards alone", {"stage": "ppo", "reward_model": "org/rm", "ppo_epochs": 2, "val_size": 0.1}),
    ("an evaluation measures rewards alone", {"stage": "grpo", "reward_model": "org/rm", "num_iterations": 2, "val_size": 0.1}),
    ("an evaluation measures rewards alone", {"stage": "ppo", "reward_model": "org/rm", "ref_model": "org/m", "val_size": 0.1}),
    ("only training reads it", {"moe_aux_loss_coef": 0.1, "val_size": 0.1}),
    ("rewards are compared, not tokens", {"stage": "kto", "compute_accuracy": True, "val_size": 0.1, "do_eval": True}),
    ("there is one data set", {"mix_strategy": "interleave_over"}),
    ("there are no several evaluation sets", {"eval_on_each_dataset": True, "eval_dataset": ("e",)}),
    ("streaming is on, and nothing else is tokenised beforehand",
     {"streaming": True, "max_steps": 5, "preprocessing_num_workers": 2}),
    ("stage is pt", {"stage": "pt", "default_system": "x"}),
    ("conversations always split them", {"split_special_tokens": True}),
    ("new_special_tokens_config wins",
     {"new_special_tokens_config": "t.yaml", "init_special_tokens": "desc_init", "add_special_tokens": ("a",)}),
    ("rows are laid end to end, without padding", {"padding_free": True, "ignore_pad_token_for_loss": False}),
    ("rows are laid end to end, without padding", {"packing": True, "ignore_pad_token_for_loss": False}),
    ("a batch of one row has no padding", {"per_device_train_batch_size": 1, "ignore_pad_token_for_loss": False}),
    ("data_manager_type is lf", {"split": "90,10"}),
    ("data_manager_type is mg, and tokens are read as they are",
     {"data_manager_type": "mg", "stage": "pt", "cutoff_policy": "drop", "overwrite_cache": True, "data_cache_dir": "c",
      "prompt_column": "c", "preprocessing_num_workers": 2}),
    ("data_manager_type is mg, which always lays documents end to end",
     {"data_manager_type": "mg", "stage": "pt", "packing": False, "neat_packing": False}),
    ("packing is off", {"neat_packing": False}),
    ("packing is on", {"packing": True, "group_by_length": True}),
    ("warmup_steps wins", {"warmup_ratio": 0.1, "warmup_steps": 3}),
    ("the schedule `constant` has no warm-up", {"lr_scheduler_type": "constant", "warmup_ratio": 0.1}),
    ("max_steps wins", {"max_steps": 3, "num_train_epochs": 2.0}),
    ("optim is adafactor", {"optim": "adafactor", "adam_beta1": 0.8}),
    ("save_strategy is not steps", {"save_strategy": "epoch", "save_steps": 3.0}),
    ("eval_strategy is not steps", {"eval_steps": 3.0}),
    ("eval_strategy is no", {"eval_delay": 1.0}),
    ("logging_strategy is not steps", {"logging_strategy": "epoch", "logging_steps": 3.0}),
    ("early_stopping_patience is absent", {"early_stopping_threshold": 0.1}),
    ("neither load_best_model_at_end nor early stopping is on", {"metric_for_best_model": "loss"}),
    ("gradient_checkpointing is off", {"use_reentrant_gc": True}),
    ("gradient_checkpointing is off", {"use_unsloth_gc": True}),
    ("modules that recompute_modules names keep their inputs where they are",
     {"gradient_checkpointing": True, "recompute_modules": ("model.layers.{0}",), "use_unsloth_gc": True}),
    ("enable_liger_kernel is off", {"liger_kernel_config": {"rope": False}}),
    ("torch_compile leaves norms to the compiler", {"torch_compile": True, "use_fused_rmsnorm": False}),
    ("only training reads it", {"torch_compile": True, "gdn_chunk_size": 32, "val_size": 0.1}),
    ("do_train is off", {"do_train": False, "do_eval": True, "val_size": 0.1, "gdn_chunk_size": 32}),
    ("report_to does not name tensorboard", {"logging_dir": "x"}),
    ("disable_shuffling is on", {"disable_shuffling": True, "data_seed": 3}),
    ("use_cpu is on", {"use_cpu": True, "dataloader_pin_memory": False}),
    ("save_strategy is not steps", {"save_strategy": "epoch", "save_epochs": 2}),
    ("pure_bf16 is off, so they are in float32 anyhow", {"upcast_layernorm": True}),
    ("nothing is evaluated or predicted", {"bf16_full_eval": True}),
    ("num_processes is 1", {"num_processes": 1, "reduce_dtype": "bf16"}),
    ("profile is off", {"profile_with_stack": True}),
    ("the optimizer has none; optim_args takes what it has", {"optim": "sgd", "adam_beta2": 0.9}),
    ("Lion has no epsilon", {"optim": "lion_8bit", "adam_epsilon": 1e-06}),
    ("use_galore is off", {"galore_rank": 4}),
    ("use_badam is off", {"badam_mode": "ratio"}),
    ("badam_mode is ratio", {"use_badam": True, "finetuning_type": "full", "badam_mode": "ratio", "badam_switch_mode": "random"}),
    ("badam_mode is layer", {"use_badam": True, "finetuning_type": "full", "badam_mask_mode": "scatter"}),
    ("lr_scheduler_type is not cosine", {"min_lr": 1e-06, "lr_scheduler_type": "linear"}),
    ("nothing is generated, because predict_with_generate and do_predict are off", {"max_new_tokens": 5}),
    ("do_sample is off", {"do_sample": False, "do_predict": True, "val_size": 0.1, "temperature": 0.5}),
    ("push_to_hub is off", {"hub_strategy": "end"}),
    ("do_train is off", {"do_train": False, "do_eval": True, "val_size": 0.1, "push_to_hub": True}),
    ("merge_lora_and_save is off, and `export` has not begun", {"export_onnx": True}),
    ("the model that was trained answers as it is", {"merge_lora": True}),
    ("the model that was trained answers as it is, and is not exported in it", {"infer_dtype": "float16"}),
    ("push_to_hub is off, and export_hub_model_id is absent", {"hub_private_repo": False}),
    ("num_beams is 1, and only beam search reads it", {"do_predict": True, "val_size": 0.1, "length_penalty": 2.0}),
    ("num_processes is 1", {"num_processes": 1, "ddp_backend": "gloo"}),
    ("report_to does not name tensorboard", {"report_to": ("console",), "run_name": "x"}),
    ("nothing is evaluated or predicted", {"per_device_eval_batch_size": 2, "eval_dataset": ("e",)}),
    ("merge_lora_and_save is off, and `export` has not begun", {"export_dir": "x", "export_size": 1.0}),
    ("the given adapter is continued, and has its own", {"adapter_name_or_path": ("org/adapter",), "lora_rank": 4, "use_rslora": True}),
    ("nothing comes from a hub", {"model_revision": "v1", "cache_dir": "x"}),
    ("dataloader_num_workers is 0", {"dataloader_timeout_s": 5}),
    ("nothing is evaluated", {"compute_accuracy": True}),
    ("nothing is evaluated while it trains, and do_eval measures the loss",
     {"predict_with_generate": True, "do_eval": True, "val_size": 0.1}),
    ("modules that recompute_modules names never take the reentrant form",
     {"gradient_checkpointing": True, "recompute_modules": ("model.layers.{0}",), "use_reentrant_gc": True}),
    ("gradient_checkpointing is on", {"gradient_checkpointing": True, "gradient_checkpointing_auto": True}),
    ("`eval` measures the loss; `predict` generates answers", {"val_size": 0.1, "predict_with_generate": True, "max_new_tokens": 5}),
    ("answers are scored as texts", {"val_size": 0.1, "compute_accuracy": True}),
    ("answers are generated in infer_dtype", {"val_size": 0.1, "bf16": True}),
]
"""The reason, and a run with one value that is not read for it."""


@pytest.mark.parametrize(("why", "given"), UNREAD_CASES, ids=[f"{why} {' '.join(given)}" for why, given in UNREAD_CASES])
def test_unread(why: str, given: dict[str, Any]) -> None:
    """Each reason of never-read: a field that it names is told with that reason."""
    entries = [entry for entry in UNREAD if entry.why == why]
    fields = {field for entry in entries for field in entry.fields} & set(given)
    for purpose in entries[0].purposes:
        assert {f"c.yaml:1: {field}: is not read by this run: {why}" for field in fields} <= set(unread_lines(given, purpose))


def test_every_reason_has_a_case() -> None:
    """No entry of UNREAD without a run that meets it."""
    assert [entry.why for entry in UNREAD if not any(
        why == entry.why and set(entry.fields) & set(given) for why, given in UNREAD_CASES)] == []


def unread_lines(given: dict[str, Any], purpose: Any) -> list[str]:
    """What never-read says of a run for this purpose."""
    origins = {field: Origin("file", "c.yaml:1", field) for field in given}
    return [finding.problem.line() for finding in checks.findings(build({**FULL, **given}), Context(origins, purpose))
            if finding.problem.rule == "never-read"]


def test_options_of_quantising_are_read_for_a_quantised_reference() -> None:
    """The model that trains is not the only one that may be quantised."""
    given = {"stage": "dpo", "ref_model": "org/m", "ref_model_quantization_bit": 4, "quantization_type": "fp4"}
    assert not [line for line in unread_lines(given, "train") if "quantization_type" in line]


def test_what_a_merge_after_training_reads_is_read() -> None:
    """merge_lora_and_save is an export: its options count, and those that an export takes from elsewhere."""
    given = {"merge_lora_and_save": True, "export_dir": "e", "export_size": 1.0, "infer_dtype": "float16", "export_hub_model_id": "a/b",
             "hub_private_repo": False}
    assert unread_lines(given, "train") == []


def test_a_new_adapter_on_a_given_one_reads_its_own_settings() -> None:
    """With create_new_adapter the rank is that of the new adapter."""
    given = {"adapter_name_or_path": ("org/adapter",), "create_new_adapter": True, "lora_rank": 4}
    assert unread_lines(given, "train") == []


def test_reasons_of_generation_hold_in_chat_too() -> None:
    """In a chat answers are generated whatever the training switches say, and a temperature without sampling is not read."""
    given = {"do_sample": False, "temperature": 0.5, "max_new_tokens": 5}
    origins = {field: Origin("file", "c.yaml:1", field) for field in given}
    found = checks.findings(build({"model_name_or_path": "demo", **given}), Context(origins, "chat"))
    assert [one.problem.line() for one in found] == ["c.yaml:1: temperature: is not read by this run: do_sample is off"]


def test_unwritable_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that may not be written to is told before anything is made. (A superuser may write anywhere, hence access.)"""
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path / "directory")
    origins = {"output_dir": Origin("command line", "command line", "--output_dir")}
    found = checks.findings(build({**FULL, "output_dir": "directory/a/b"}), Context(origins, "train"))
    assert [one.problem.line() for one in found] == [
        f"command line: --output_dir: directory/a/b cannot be made: {tmp_path}/directory is not writable; "
        "name a directory that can be written"]

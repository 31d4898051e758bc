"""The sentences of LLaMA-Factory's document, and what becomes of each."""

from __future__ import annotations

from typing import Any, Final

from tests.spec.rows import Breaks, Elsewhere, Fact, Means, Notes, Refused, Row, Within, unread

EVALUATES: Final[dict[str, Any]] = {"eval_dataset": "e", "eval_strategy": "epoch"}
GENERATES: Final[dict[str, Any]] = {**EVALUATES, "predict_with_generate": True}
STEPS: Final = Within((0, -1, 1.5, "often"), (1, 10, 0.5))
COUNT: Final = Within((0, -1, 1.5, "many"), (1, 10))
IDLE: Final = "nothing is generated, because predict_with_generate and do_predict are off"
BADAM: Final[dict[str, Any]] = {"use_badam": True, "finetuning_type": "full"}
GALORE: Final[dict[str, Any]] = {"use_galore": True, "finetuning_type": "full"}
STREAMS: Final[dict[str, Any]] = {"do_train": True, "streaming": True, "max_steps": 5}
TWO_SETS: Final[dict[str, Any]] = {"dataset": "d,e", "mix_strategy": "interleave_over"}
PROBABILITIES: Final = Breaks("probabilities-without-turns", {"interleave_probs": "0.5,0.5", "dataset": "d,e"},
                              {"interleave_probs": "0.5,0.5", **TWO_SETS})
SUMMING: Final = Breaks("probabilities-not-whole", {"interleave_probs": "0.5,0.6", **TWO_SETS}, {"interleave_probs": "0.5,0.5", **TWO_SETS})

_MODEL: Final[dict[tuple[str, str], Row]] = {
    ("vllm_maxlen", ">0"): Refused(),
    ("vllm_gpu_util", "(0,1)"): Refused(),
    ("vllm_max_lora_rank", ">0"): Refused(),
    ("vllm_max_lora_rank", "must be at least the rank of any LoRA adapter loaded (a rank-64 adapter needs 64)"): Refused(),
    ("export_size", ">0, in GB"): COUNT,
    ("export_quantization_bit", "examples 8 and 4"): Refused(),
    ("export_quantization_nsamples", ">0"): Refused(),
    ("export_quantization_maxlen", ">0"): Refused(),
    ("image_resolution", ">0"): Refused(),
    ("video_resolution", ">0"): Refused(),
    ("video_maxlen", ">0"): Refused(),
    ("quantization_method", "quantization_bit is set"):
        Means({"quantization_method": "bitsandbytes"}, {"quantization_bit": None, "quantization_method": "bitsandbytes"}),
    ("quantization_bit", "4, 8, etc."): Within((3, 5, "four"), (4, 8, None)),
    ("quantization_type", "bitsandbytes int4 quantization (quantization_bit=4)"):
        unread("quantization_type", "fp4", "weights have 8 bits", {"quantization_bit": 8}, {"quantization_bit": 4}),
    ("double_quantization", "bitsandbytes int4 training"):
        unread("double_quantization", False, "weights have 8 bits", {"quantization_bit": 8}, {"quantization_bit": 4}),
    ("quantization_device_map", "4-bit quantized inference"):
        Breaks("device-map-in-training", {"quantization_device_map": "auto", "quantization_bit": 4, "do_train": True},
               {"quantization_device_map": "auto", "quantization_bit": 4}),
    ("quantization_device_map", "auto needs bitsandbytes>=0.43.0"): Fact("no older bitsandbytes is taken: the package asks for 0.50"),
    ("model_name_or_path", "must be given whenever a particular pretrained or fine-tuned model is to be used"):
        Breaks("no-model", {"do_train": True}, {"model_name_or_path": "demo"}, absent=True),
    ("new_special_tokens", "may need resize_vocab to resize the embedding layer to match"):
        Notes("tokens are added: where the embedding has no rows for them, it grows all the same",
              {"new_special_tokens": "<a>", "resize_vocab": False}, {"new_special_tokens": "<a>"}, key="resize_vocab"),
    ("use_unsloth", "LoRA training"): Refused(),
    ("use_unsloth_gc", "use_unsloth (doc: used in unsloth mode)"): Fact("it works without Unsloth, in LLaMA-Factory as here"),
    ("enable_liger_kernel", "needs hardware and framework that support Liger"):
        Breaks("gpu-only-kernels", {"enable_liger_kernel": True, "use_cpu": True}, {"enable_liger_kernel": True}),
    ("moe_aux_loss_coef", "a mixture-of-experts model"):
        Elsewhere("tests/engine/test_router_balance.py::test_a_model_without_routers_is_refused"),
    ("use_cache", "inference"): unread("use_cache", False, IDLE, {"do_train": True}, GENERATES),
}

_DATA: Final[dict[tuple[str, str], Row]] = {
    ("dataset_dir", "combines with dataset to locate the data"): Elsewhere("tests/data/test_sources.py::test_registered_sets"),
    ("cutoff_len", ">0"): Within((0, -1, 1.5, "long"), (8, 512)),
    ("streaming", "buffer_size has to be chosen to suit it"):
        Notes("3 rows are fewer than the 4 of one batch",
              {**STREAMS, "buffer_size": 3, "per_device_train_batch_size": 4},
              {**STREAMS, "buffer_size": 4, "per_device_train_batch_size": 4}, key="buffer_size"),
    ("buffer_size", "streaming"): unread("buffer_size", 64, "streaming is off", {"do_train": True}, STREAMS),
    ("buffer_size", ">0"): Within((0, -1, 1.5, "many"), (1, 16384), STREAMS),
    ("interleave_probs", "mix_strategy=interleave_under or interleave_over"): PROBABILITIES,
    ("interleave_probs", "probabilities sum to 1"): SUMMING,
    ("interleave_probs", "values sum to 1"): SUMMING,
    ("overwrite_cache", "needed after changing tokenization, maximum length or other preprocessing"): Fact(
        "not needed here: the cache is found by a digest of everything that decides the tokens"),
    ("preprocessing_batch_size", ">0"): Within((0, -1, 1.5, "many"), (1, 1000)),
    ("preprocessing_num_workers", ">0 or null"): Within((0, -1, 1.5, "many"), (1, 2, None)),
    ("max_samples", ">0 or null"): Within((0, -1, 1.5, "many"), (1, 10, None)),
    ("eval_num_beams", ">0 or null"): Within((0, -1, 1.5, "many"), (1, 4, None)),
    ("val_size", "[0,1) or integer"): Within((-1, 1.5, "half"), (0, 0.5, 10), {"dataset": "d"}),
}

_TRAINER: Final[dict[tuple[str, str], Row]] = {
    ("output_dir", "must be given when trained weights or predictions are to be saved"):
        Breaks("no-output", {"do_train": True}, {"output_dir": "out"}, absent=True),
    ("per_device_train_batch_size", ">0"): COUNT,
    ("per_device_train_batch_size", "effective batch = per_device_train_batch_size * number of devices * gradient_accumulation_steps"):
        Fact("it explains a product and demands nothing of its factors"),
    ("per_device_eval_batch_size", ">0"): COUNT,
    ("gradient_accumulation_steps", ">0"): COUNT,
    ("eval_delay", "unit (epochs or steps) follows eval_strategy"): unread("eval_delay", 2, "eval_strategy is no", None, EVALUATES),
    ("eval_delay", "integer or float depending on the evaluation strategy"): Within((-1, "later"), (0, 2, 0.5), EVALUATES),
    ("num_train_epochs", "overridden by max_steps when max_steps>0"): unread("num_train_epochs", 2, "max_steps wins", {"max_steps": 5}),
    ("max_steps", "overrides num_train_epochs when >0"):
        Notes("max_steps wins", {"max_steps": 5, "num_train_epochs": 2}, {"max_steps": -1, "num_train_epochs": 2}, "num_train_epochs"),
    ("max_steps", "-1 means ignored"): Within((-2, 0, 1.5, "all"), (-1, 1, 10)),
    ("warmup_ratio", "[0,1)"): Within((-0.1, 1, 1.5, "much"), (0, 0.5, 0.99)),
    ("log_level", "main node only; see log_level_replica"): Means({"log_level": "error"}, {"log_level": "error"}),
    ("log_level_replica", "distributed training"):
        unread("log_level_replica", "error", "num_processes is 1", words=("num_processes=1",)),
    ("log_level_replica", "same values as log_level"): Within(("loud", 3), ("debug", "info", "warning", "error", "critical", "passive")),
    ("log_on_each_node", "multi-node training"):
        unread("log_on_each_node", True, "num_processes is 1", words=("num_processes=1",)),
    ("logging_steps", "logging_strategy=steps"): unread("logging_steps", 7, "logging_strategy is not steps", {"logging_strategy": "epoch"}),
    ("logging_steps", "integer steps, or float in (0,1) as a share of total steps"): STEPS,
    ("save_steps", "save_strategy=steps"): unread("save_steps", 7, "save_strategy is not steps", {"save_strategy": "epoch"}),
    ("save_steps", "integer steps, or float in (0,1) as a share of total steps"): STEPS,
    ("save_on_each_node", "multi-node training"): Refused(),
    ("save_only_model", "such checkpoints cannot be used to resume training"):
        Elsewhere("tests/store/test_resume_rules.py::test_weights_alone_cannot_be_continued"),
    ("restore_callback_states_from_checkpoint", "resuming from a checkpoint"): Refused(),
    ("use_cpu", "must be enabled when no GPU is available (as stated)"): Fact("not needed here: a run without an accelerator uses the CPU"),
    ("bf16", "hardware must support bfloat16 (NVIDIA Ampere, CPU or NPU)"): Fact(
        "every device that torch trains on computes bfloat16, the CPU included"),
    ("bf16_full_eval", "hardware must support bf16"): Fact("every device that torch trains on computes bfloat16, the CPU included"),
    ("tf32", "needs an Ampere GPU"): Breaks("accelerator-only", {"tf32": True, "use_cpu": True}, {"tf32": True}),
    ("local_rank", "-1 means not distributed or assigned automatically"): Refused(),
    ("eval_steps", "eval_strategy=steps"): unread("eval_steps", 7, "eval_strategy is not steps", None, {"eval_strategy": "steps"}),
    ("eval_steps", "integer steps, float in (0,1) as a share, or null"): Within((0, -1, 1.5, "often"), (1, 10, 0.5, None)),
    ("dataloader_num_workers", ">=0"): Within((-1, 1.5, "many"), (0, 4)),
    ("dataloader_prefetch_factor", "for PyTorch<2.0 the default is 2"): Fact("torch is newer than 2.0 wherever this is installed"),
    ("past_index", "-1 disables; >=0 enables"): Refused(),
    ("metric_for_best_model", "load_best_model_at_end"):
        unread("metric_for_best_model", "loss", "neither load_best_model_at_end nor early stopping is on", None,
               {**EVALUATES, "load_best_model_at_end": True}),
    ("greater_is_better", "metric_for_best_model"):
        Breaks("greater-loss", {"greater_is_better": True}, {"greater_is_better": True, "metric_for_best_model": "accuracy"}),
    ("ignore_data_skip", "resuming from a checkpoint"): Refused(),
    ("length_column_name", "group_by_length"): Refused(),
    ("hub_strategy", "push_to_hub"): unread("hub_strategy", "end", "push_to_hub is off", None, {"push_to_hub": True}),
    ("mp_parameters", "SageMaker launcher"): Refused(),
    ("ray_scope", "hyperparameter search with Ray"): Refused(),
    ("ddp_timeout", "seconds"): Within((-1, 0, 1.5, "soon"), (60, 1800)),
    ("torch_compile", "needs PyTorch 2.x or later"): Fact("no older torch is taken: the package asks for 2.13"),
    ("optim_target_modules", "an optimizer that takes target modules, such as GaLore"):
        unread("optim_target_modules", "q_proj", "use_galore is off", None, GALORE),
    ("eval_use_gather_object", "distributed evaluation"): Refused(),
    ("generation_max_length", "predict_with_generate"): unread("generation_max_length", 64, IDLE, {"do_train": True}, GENERATES),
    ("generation_num_beams", "predict_with_generate (by context)"): unread("generation_num_beams", 2, IDLE, {"do_train": True}, GENERATES),
    ("generation_config", "predict_with_generate"): unread("generation_config", "g.json", IDLE, {"do_train": True}, GENERATES),
    ("generation_config", "file path or URL"): Within((3, [1]), (None, "g.json")),
}

_OPTIMIZERS: Final[dict[tuple[str, str], Row]] = {
    ("badam_mode", "use_badam"): unread("badam_mode", "ratio", "use_badam is off", None, BADAM),
    ("badam_start_block", "badam_mode=layer"):
        unread("badam_start_block", 1, "badam_mode is ratio", {**BADAM, "badam_mode": "ratio"}, BADAM),
    ("badam_switch_mode", "use_badam"): unread("badam_switch_mode", "random", "use_badam is off", None, BADAM),
    ("badam_switch_interval", "use_badam"): unread("badam_switch_interval", 7, "use_badam is off", None, BADAM),
    ("badam_update_ratio", "badam_mode=ratio"):
        unread("badam_update_ratio", 0.5, "badam_mode is layer", BADAM, {**BADAM, "badam_mode": "ratio"}),
    ("badam_mask_mode", "use_badam"): unread("badam_mask_mode", "scatter", "use_badam is off", None, BADAM),
    ("badam_verbose", "use_badam"): unread("badam_verbose", 1, "use_badam is off", None, BADAM),
    ("badam_verbose", "0, 1 or 2"): Within((3, -1, 0.5, "much"), (0, 1, 2)),
    ("galore_target", "use_galore"): unread("galore_target", "q_proj", "use_galore is off", None, GALORE),
    ("galore_target", '"all" or comma-separated module names'):
        Means({"galore_target": "q_proj,v_proj"}, {"galore_target": ("q_proj", "v_proj")}),
    ("galore_rank", "use_galore"): unread("galore_rank", 4, "use_galore is off", None, GALORE),
    ("galore_update_interval", "use_galore"): unread("galore_update_interval", 7, "use_galore is off", None, GALORE),
    ("galore_scale", "use_galore"): unread("galore_scale", 2.0, "use_galore is off", None, GALORE),
    ("galore_proj_type", "use_galore"): unread("galore_proj_type", "left", "use_galore is off", None, GALORE),
    ("galore_layerwise", "use_galore"): Refused(),
}

_ALIGNMENT: Final[dict[tuple[str, str], Row]] = {
    **{(name, "stage=dpo"): unread(name, value, "stage is not dpo", None, {"stage": "dpo"})
       for name, value in (("pref_ftx", 0.5), ("pref_loss", "ipo"), ("dpo_label_smoothing", 0.1))},
    ("pref_beta", "stage=dpo"): unread("pref_beta", 0.5, "stage is neither dpo nor kto", None, {"stage": "dpo"}),
    ("dpo_label_smoothing", "[0,0.5]"): Within((-0.1, 0.6, "some"), (0, 0.1, 0.5), {"stage": "dpo"}),
    **{(name, "stage=kto"): unread(name, 2.0, "stage is not kto", {"stage": "dpo"}, {"stage": "kto"})
       for name in ("kto_chosen_weight", "kto_rejected_weight")},
    ("simpo_gamma", "pref_loss=simpo"):
        unread("simpo_gamma", 1.0, "pref_loss is not simpo", {"stage": "dpo"}, {"stage": "dpo", "pref_loss": "simpo"}),
    **{(name, "stage=ppo"): unread(name, value, "stage is not ppo", None, {"stage": "ppo"}) for name, value in (
        ("ppo_buffer_size", 2), ("ppo_epochs", 2), ("ppo_score_norm", True), ("ppo_target", 3.0), ("ppo_whiten_rewards", True))},
    ("reward_model", "stage=ppo"): unread("reward_model", "org/rm", "stage is neither ppo nor grpo", None, {"stage": "ppo"}),
    ("reward_model_type", "stage=ppo"): unread("reward_model_type", "full", "stage is neither ppo nor grpo", None, {"stage": "ppo"}),
    ("ref_model", "stage=ppo or dpo"):
        unread("ref_model", "org/m", "nothing is compared with a reference model", None, {"stage": "dpo"}),
    **{(name, model): Breaks("model-parts-without-model", {"stage": stage, name: value}, {"stage": stage, model: "org/m", name: value})
       for name, model, stage, value in (
           ("ref_model_adapters", "ref_model", "dpo", "org/a"), ("ref_model_quantization_bit", "ref_model", "dpo", 4),
           ("reward_model_adapters", "reward_model", "ppo", "org/a"), ("reward_model_quantization_bit", "reward_model", "ppo", 4))},
}

_LORA: Final = {"finetuning_type": "lora"}
_WITHOUT_LORA: Final = "adapter-variant-without-lora"

_TUNING: Final[dict[tuple[str, str], Row]] = {
    ("additional_target", "finetuning_type=lora"):
        unread("additional_target", "lm_head", "finetuning_type is not lora", {"finetuning_type": "full"}, _LORA),
    ("lora_alpha", "null means lora_rank*2"): Means({"lora_rank": 12, "lora_alpha": None}, {"lora_alpha": 24.0}),
    ("lora_dropout", "[0,1)"): Within((-0.1, 1, 1.5, "some"), (0, 0.5)),
    ("lora_target", '"all" or string matching rules'): Within(("[", 3), ("all", "q_proj,v_proj", r"layers\.[0-9]{1,2}\.q_proj")),
    ("loraplus_lr_ratio", "finetuning_type=lora"):
        Breaks(_WITHOUT_LORA, {"finetuning_type": "freeze", "loraplus_lr_ratio": 16.0}, {"loraplus_lr_ratio": 16.0}),
    ("loraplus_lr_embedding", "loraplus_lr_ratio (LoRA+)"):
        unread("loraplus_lr_embedding", 1e-5, "loraplus_lr_ratio is absent", None, {"loraplus_lr_ratio": 16.0}),
    **{(name, "finetuning_type=lora"): Breaks(_WITHOUT_LORA, {"finetuning_type": "full", name: True}, {name: True})
       for name in ("use_rslora", "use_dora", "pissa_init", "create_new_adapter")},
    ("pissa_iter", "pissa_init"): unread("pissa_iter", 4, "pissa_init is off", None, {"pissa_init": True}),
    ("pissa_iter", "-1 disables"): Within((-2, 0, 1.5, "some"), (-1, 4), {"pissa_init": True}),
    ("pissa_convert", "pissa_init"):
        Breaks("conversion-without-pissa", {"pissa_convert": True}, {"pissa_init": True, "pissa_convert": True}),
    ("freeze_trainable_layers", "finetuning_type=freeze"):
        unread("freeze_trainable_layers", 3, "finetuning_type is not freeze", None, {"finetuning_type": "freeze"}),
    ("freeze_trainable_layers", "positive = last n layers, negative = first n layers"):
        Within((0, 1.5, "some"), (2, -2), {"finetuning_type": "freeze"}),
    ("freeze_trainable_modules", "finetuning_type=freeze"):
        unread("freeze_trainable_modules", "mlp", "finetuning_type is not freeze", None, {"finetuning_type": "freeze"}),
    ("freeze_trainable_modules", '"all" or a list of names'):
        Means({"freeze_trainable_modules": "mlp,self_attn"}, {"freeze_trainable_modules": ("mlp", "self_attn")}),
    ("freeze_extra_modules", "finetuning_type=freeze"):
        unread("freeze_extra_modules", "lm_head", "finetuning_type is not freeze", None, {"finetuning_type": "freeze"}),
    ("pure_bf16", "hardware must support bf16"): Fact("every device that torch trains on computes bfloat16, the CPU included"),
    ("freeze_vision_tower", "multimodal training"): Refused(),
    ("train_mm_proj_only", "multimodal training"): Refused(),
    ("temperature", ">0"): Within((0, -1, "warm"), (0.1, 2)),
    ("top_p", "(0,1]"): Within((0, -1, 1.5, "most"), (0.1, 1)),
    ("max_new_tokens", "used together with max_length or in place of it"): Fact("either may be given, and both"),
    ("length_penalty", "num_beams>1 (beam search)"):
        unread("length_penalty", 2.0, "num_beams is 1, and only beam search reads it", GENERATES, {**GENERATES, "num_beams": 2}),
}

ROWS: Final[dict[tuple[str, str], Row]] = {**_MODEL, **_DATA, **_TRAINER, **_OPTIMIZERS, **_ALIGNMENT, **_TUNING}

_QUANTISED: Final = {"quantization_bit": 4}

ENFORCED: Final[dict[tuple[str, str], Row]] = {
    ("adapter_name_or_path", "only with lora"): Breaks(
        "adapter-without-lora", {"adapter_name_or_path": "org/a", "finetuning_type": "full"}, {"adapter_name_or_path": "org/a"}),
    ("quantization_bit", "only with lora"): Breaks("tuning-quantised-weights", {**_QUANTISED, "finetuning_type": "full"}, _QUANTISED),
    ("quantization_bit", "not with resize_vocab"): Breaks("numbers-in-quantised-weights", {**_QUANTISED, "resize_vocab": True}, _QUANTISED),
    ("quantization_bit", "not with pissa_init"): Breaks("numbers-in-quantised-weights", {**_QUANTISED, "pissa_init": True}, _QUANTISED),
    ("quantization_bit", "not with create_new_adapter on an adapter"): Breaks(
        "numbers-in-quantised-weights", {**_QUANTISED, "adapter_name_or_path": "org/a", "create_new_adapter": True},
        {**_QUANTISED, "adapter_name_or_path": "org/a"}),
    ("quantization_bit", "not with several adapters"): Breaks(
        "several-adapters-on-quantised-weights", {**_QUANTISED, "adapter_name_or_path": "org/a,org/b"},
        {**_QUANTISED, "adapter_name_or_path": "org/a"}),
    ("quantization_device_map", "auto excludes training"): Breaks(
        "device-map-in-training", {**_QUANTISED, "quantization_device_map": "auto", "do_train": True}, {"do_train": True}),
    ("split_special_tokens", "needs the slow tokenizer"): Fact("not needed here: today's fast tokenizers split them too"),
    ("train_on_prompt", "only for sft"): Breaks("conversation-masks-in-pretraining", {"stage": "pt", "train_on_prompt": True}),
    ("mask_history", "only for sft"): Breaks("conversation-masks-in-pretraining", {"stage": "pt", "mask_history": True}),
    ("neat_packing", "only for sft"): Means({"stage": "pt", "neat_packing": True}, {"stage": "pt", "neat_packing": True, "packing": True}),
    ("predict_with_generate", "only for sft"): Breaks("generation-in-pretraining", {**GENERATES, "stage": "pt"}, GENERATES),
    ("do_predict", "needs predict_with_generate in sft"): Fact("do_predict generates answers here without being told how to evaluate"),
    ("predict_with_generate", "needs eval_dataset"): Breaks(
        "generation-without-data", {"do_train": True, "predict_with_generate": True}, {"do_train": True, **GENERATES}),
    ("predict_with_generate", "excludes compute_accuracy"): Breaks(
        "accuracy-with-generation", {**GENERATES, "compute_accuracy": True}, GENERATES),
    ("streaming", "needs max_steps"): Breaks("stream-without-end", {"do_train": True, "streaming": True}, STREAMS),
    ("do_train", "needs dataset"): Breaks("no-dataset", {"do_train": True}, {"do_train": True, "dataset": "d"}),
    ("do_eval", "needs eval_dataset or val_size"): Breaks(
        "extra-work-without-data", {"do_eval": True}, {"do_eval": True, "eval_dataset": "e"}),
    ("interleave_probs", "needs interleaving and one number for each data set"): Breaks(
        "probabilities-for-other-sets", {**TWO_SETS, "do_train": True, "interleave_probs": "0.2,0.3,0.5"},
        {**TWO_SETS, "do_train": True, "interleave_probs": "0.2,0.8"}),
    ("stage", "ppo needs reward_model"): Breaks("ppo-without-reward-model", {"do_train": True, "stage": "ppo"}, {
        "do_train": True, "stage": "ppo", "reward_model": "org/rm"}),
    ("stage", "rm and ppo exclude load_best_model_at_end"): Fact("an evaluation of these stages has metrics too, of which one is best"),
    ("use_llama_pro", "excludes full"): Breaks(
        "expanded-blocks-in-full", {"use_llama_pro": True, "finetuning_type": "full"}, {"use_llama_pro": True}),
    ("train_mm_proj_only", "needs full"): Refused(),
    ("use_galore", "excludes lora"): Breaks("optimizer-method-with-lora", {"use_galore": True, "finetuning_type": "lora"}, GALORE),
    ("use_badam", "excludes lora"): Breaks("optimizer-method-with-lora", {"use_badam": True, "finetuning_type": "lora"}, BADAM),
    ("use_galore", "excludes BAdam"): Breaks("several-optimizer-methods", {**GALORE, "use_badam": True}, GALORE),
}
"""What LLaMA-Factory itself enforces and its document does not say (semantics, section 3), and what becomes of it."""

"""The keys of TRL's DPOConfig, KTOConfig, CPOConfig (SimPO), ORPOConfig, RewardConfig, GRPOConfig and PPOConfig (2026) in our names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tunewright.dialects.spelling import Means, Meant, is_empty, is_on, not_here, nothing, part_of
from tunewright.dialects.trl_trainer import Trainer, losses_of, trainer_of

PAIR_LOSSES: Final = ("sigmoid", "hinge", "ipo", "robust", "kto_pair")
"""The names of its losses over pairs that mean the same here."""

_WITHOUT_DROPOUT: Final = ("reward", "dpo", "cpo", "kto")
"""Trainers that turn all dropout off without being told, an adapter's too."""


def alignment_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the trainer of this file does without being told, where our stage does otherwise; nothing for SFT."""
    trainer = trainer_of(values)
    if trainer == "sft":
        return {}
    stages = {"reward": "rm", "cpo": "dpo"}
    rates = {"reward": 1e-4, "ppo": 5e-5}
    found: dict[str, Any] = {"stage": stages.get(trainer, trainer), "learning_rate": rates.get(trainer, 1e-6)}
    if has_no_dropout(values):
        found["lora_dropout"] = 0.0
    if trainer == "cpo":
        found["pref_ftx"] = 0.0 if "alphapo" in losses_of(values.get("loss_type")) else 1.0
    if trainer == "grpo":
        found |= {"max_new_tokens": 512, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "cutoff_len": NO_CUT, **(prompts_of(values) or {})}
    if trainer == "ppo":
        found |= {"max_new_tokens": 53, "temperature": 0.7, "top_p": 1.0, "top_k": 0, "cutoff_len": NO_CUT, "ppo_init_kl_coef": 0.05,
                  "ppo_adap_kl_ctrl": False}
    return found


def alignment_remarks(values: Mapping[str, Any]) -> tuple[str, ...]:
    """What the trainer of this file does without being told that is not done here."""
    trainer, losses, found = trainer_of(values), losses_of(values.get("loss_type")), []
    if trainer == "grpo" and values.get("beta") not in (None, 0) and "use_bias_correction_kl" not in values:
        found.append("TRL weighs the divergence from the reference by the probability ratio (use_bias_correction_kl); here it is as it is")
    share = values.get("rpo_alpha") if trainer != "cpo" or "alphapo" in losses else values.get("cpo_alpha", 1.0)
    if "sft" in losses or share not in (None, 0):
        found.append("of the supervised part beside the preference loss each chosen answer counts the same here; in TRL each of its tokens")
    return tuple(found)


NO_CUT: Final = 2**24
"""A length that no row has."""


def has_no_dropout(values: Mapping[str, Any]) -> bool:
    """Whether the trainer of this file sets every dropout to 0, whatever the adapter's configuration says."""
    given = values.get("disable_dropout")
    return is_on(given) if not is_empty(given) else trainer_of(values) in _WITHOUT_DROPOUT


def prompts_of(values: Mapping[str, Any], per_device: str = "per_device_train_batch_size", usual: int = 8) -> dict[str, int] | None:
    """The batch of GRPO in prompts, as we count it, where TRL counts answers; None if they make no whole groups on a device."""
    numbers = [values.get(key) if not is_empty(values.get(key)) else default
               for key, default in ((per_device, usual), ("gradient_accumulation_steps", 1), ("num_generations", 8))]
    if not all(isinstance(one, int) and not isinstance(one, bool) and one > 0 for one in numbers):
        return None
    answers, accumulation, group = (int(one) for one in numbers if isinstance(one, int))
    if answers % group == 0:
        return {"per_device_train_batch_size": answers // group, "gradient_accumulation_steps": accumulation}
    if answers * accumulation % group == 0:
        return {"per_device_train_batch_size": answers * accumulation // group, "gradient_accumulation_steps": 1}
    return None


def of_batches(name: str, per_device: str = "per_device_train_batch_size") -> Means:
    """A number of rows or of micro-batches: in GRPO of answers there, of prompts here."""

    def meant(value: Any, values: Mapping[str, Any]) -> list[Meant]:
        if trainer_of(values) != "grpo":
            return [Meant(name, value)]
        found = prompts_of(values, per_device)
        return [Meant(name, found[name])] if found else [Meant(None, why="counts answers there and prompts here, and the answers of one "
                                                               "device make no whole groups of num_generations")]

    return meant


def beta(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    """The weight of the divergence in GRPO; elsewhere the factor of the log-ratio, ORPO's lambda too."""
    return [Meant("grpo_beta" if trainer_of(values) == "grpo" else "pref_beta", value)]


def loss_of(trainer: Trainer, value: Any, weights: Any) -> list[Meant]:
    """The formula of a trainer, and for DPO what a supervised part beside it weighs."""
    names = losses_of(value)
    if trainer == "grpo":
        return [Meant("grpo_loss_type", value)]
    if trainer == "kto":
        return [Meant(None, why="the same loss", is_lost=False) if names == ["kto"] else Meant(None, why="of losses over single answers, "
                                                                                                "there is kto")]
    if trainer == "cpo":
        known = names in (["simpo"], ["alphapo"])
        return [Meant("pref_loss", "simpo") if known else Meant(None, why="of losses without a reference, there are simpo and orpo")]
    return _pair_loss(names, weights)


def _pair_loss(names: list[str], weights: Any) -> list[Meant]:
    shares = dict(zip(names, weights if isinstance(weights, list) else [1.0] * len(names), strict=False))
    supervised = shares.pop("sft", None)
    if len(shares) != 1 or next(iter(shares)) not in PAIR_LOSSES:
        return [Meant(None, why=f"pref_loss is one of {', '.join(PAIR_LOSSES)}, orpo and simpo, alone or with sft")]
    ((name, share),) = shares.items()
    found = [Meant("pref_loss", name)]
    if supervised is not None:
        found.append(Meant("pref_ftx", supervised))
    return found if share == 1 else [*found, Meant(None, why="the preference loss counts once; pref_ftx is what the supervised part weighs",
                                                   label="loss_weights")]


def of_groups(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    """`scale_rewards`, which once was a truth."""
    return [Meant("scale_rewards", ("group" if value else "none") if isinstance(value, bool) else value)]


def functions(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    """Reward functions: dotted paths, of which the last part is the function; those that TRL has under a short name are not ours."""
    names = value if isinstance(value, list) else [value]
    dotted = [name for name in names if isinstance(name, str) and "." in name.strip(".")]
    others = [Meant(None, why="is one of TRL's own; name a function as module:function", label=f"reward_funcs[{position}]")
              for position, name in enumerate(names) if name not in dotted]
    found = [Meant("reward_funcs", [":".join(name.rsplit(".", 1)) for name in dotted])] if dotted else []
    return [*found, *others]


def only(usual: Any, why: str) -> Means:
    """The one value that is always so here; any other is not done."""
    return lambda value, values: [Meant(None, why="is always so", is_lost=False) if value == usual and not isinstance(value, bool)
                                  else Meant(None, why=why)]


def _loss_smoothing(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    if "robust" in losses_of(values.get("loss_type")):
        return [Meant("dpo_label_smoothing", value)]
    if trainer_of(values) == "cpo":
        return not_here("simpo has no smoothing here")(value, values)
    return [Meant(None, why="TRL reads it with robust and exo_pair only", is_lost=False)]


def _answer_length(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    if trainer_of(values) == "grpo":
        return [Meant("max_new_tokens", value)]
    return [Meant(None, why="answers are not cut by themselves; max_length is for prompt and answer together")]


def _as_often(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    """Updates before new answers are made are the accumulated micro-batches, unless told otherwise."""
    if value == (values.get("gradient_accumulation_steps") or 1):
        return [Meant(None, why="is so here", is_lost=False)]
    return [Meant(None, why="each step makes answers of its own; num_iterations says how often they are trained on")]


def _same_in_evaluation(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    return [Meant(None, why="an evaluation makes num_generations answers too", is_lost=value != (values.get("num_generations") or 8))]


def _written_answers(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    if is_on(value):
        return [Meant(None, why="answers are written every sample_log_steps", is_lost=False)]
    return [Meant("sample_log_steps", 0)]


def _without_dropout(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    return [Meant("lora_dropout", 0.0)] if is_on(value) else [Meant(None, why="is off, and is left out", is_lost=False)]


def dropout(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    """The adapter's, which most of these trainers set to 0."""
    if has_no_dropout(values):
        return [Meant(None, why="disable_dropout is on in this trainer, and sets it to 0", is_lost=False)]
    return [Meant("lora_dropout", value)]


def policy_of_ppo(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    """`model_name_or_path`: where `sft_model_path` names the policy, only the tokenizer's."""
    return [Meant("model_name_or_path" if is_empty(values.get("sft_model_path")) else "tokenizer_name_or_path", value)]


_CLASSIFIER: Final = not_here("TRL's reward models are classifiers; reward_model is what a run of stage rm wrote")
_VLLM: Final = nothing("the policy itself makes the answers")
_NO_SYNC: Final = not_here("the reference stays what it was")

PREFERENCE_KEYS: Final[Mapping[str, str | Means]] = {
    "beta": beta, "label_smoothing": _loss_smoothing, "loss_weights": part_of("loss_type"), "rpo_alpha": "pref_ftx",
    "cpo_alpha": "pref_ftx", "simpo_gamma": "simpo_gamma", "desirable_weight": "kto_chosen_weight",
    "undesirable_weight": "kto_rejected_weight", "precompute_ref_log_probs": "precompute_ref_log_probs",
    "precompute_ref_batch_size": nothing("changes the speed only"), "disable_dropout": _without_dropout, "lora_dropout": dropout,
    "router_aux_loss_coef": "moe_aux_loss_coef", "pad_to_multiple_of": nothing("changes memory only"),
    "padding_value": nothing("padding is never read"), "label_pad_token_id": nothing("padding is never read"),
    "f_divergence_type": only("reverse_kl", "the divergence is the reverse KL"), "f_alpha_divergence_coef": part_of("f_divergence_type"),
    "ld_alpha": only(1.0, "all tokens of an answer count alike"), "use_weighting": not_here("pairs count alike"),
    "discopop_tau": part_of("loss_type"), "reference_free": not_here("losses without a reference are simpo and orpo"),
    "alpha": not_here("rewards are log-probabilities"), "center_rewards_coefficient": not_here("rewards are not drawn to 0"),
    "sync_ref_model": _NO_SYNC, "ref_model_mixup_alpha": part_of("sync_ref_model"), "ref_model_sync_steps": part_of("sync_ref_model"),
    "generate_during_eval": not_here("predict generates answers"), "is_encoder_decoder": not_here("models are decoders"),
    "max_prompt_length": not_here("prompts are not cut by themselves; max_length is for prompt and answer together"),
    "max_completion_length": _answer_length, "use_logits_to_keep": nothing("changes memory only"),
    "force_use_ref_model": nothing("the reference is the model that the run began with"),
    "model_adapter_name": nothing("adapters need no names"), "ref_adapter_name": not_here("a reference's adapters are ref_model_adapters"),
}
"""Keys of the trainers on pairs and marked answers."""

GRPO_KEYS: Final[Mapping[str, str | Means]] = {
    **{name: name for name in ("num_generations", "num_iterations", "epsilon", "epsilon_high", "importance_sampling_level",
                               "reward_weights", "temperature", "top_p", "top_k", "repetition_penalty")},
    "reward_funcs": functions, "reward_model_name_or_path": _CLASSIFIER, "scale_rewards": of_groups,
    "max_completion_length": _answer_length, "num_generations_eval": _same_in_evaluation, "steps_per_generation": _as_often,
    "generation_batch_size": not_here("each step makes answers of its own"), "min_p": not_here("answers are drawn with top_p and top_k"),
    "generation_kwargs": not_here("set the generation parameters by their names"),
    "chat_template_kwargs": not_here("templates take no arguments"), "cache_implementation": nothing("changes memory only"),
    "log_completions": _written_answers, "num_completions_to_print": nothing("answers are written, not printed"),
    "log_unique_prompts": nothing("answers are written, not printed"), "log_multimodal": nothing("answers are texts"),
    "log_completions_hub_repo": not_here("answers stay in rollouts.jsonl"),
    "delta": not_here("ratios are clipped by epsilon and epsilon_high"), "mask_truncated_completions": not_here("all answers are trained"),
    "multi_objective_aggregation": only("sum_then_normalize", "rewards are summed, then compared"),
    "top_entropy_quantile": only(1.0, "all tokens are trained"), "entropy_coef": not_here("entropy is logged, not rewarded"),
    "use_adaptive_entropy": not_here("entropy is logged, not rewarded"),
    **{f"entropy_{name}": part_of("use_adaptive_entropy") for name in ("coef_min", "coef_max", "coef_delta", "target")},
    "off_policy_mask_threshold": not_here("all answers are trained"), "cast_lm_head_to_fp32": not_here("weights have one format"),
    "use_bias_correction_kl": not_here("the divergence is not weighed by the ratio"),
    "max_tool_calling_iterations": not_here("answers call no tools"), "normalize_advantages": not_here("RLOO is not built"),
    "reward_clip_range": not_here("RLOO is not built"), "ds3_gather_for_generation": nothing("changes the speed only"),
    **{f"{kind}_{name}": part_of("loss_type") for kind, names in (
        ("sapo", ("temperature_neg", "temperature_pos")), ("vespo", ("k_pos", "lambda_pos", "k_neg", "lambda_neg"))) for name in names},
    "use_vllm": _VLLM, "use_transformers_paged": _VLLM, "use_transformers_continuous_batching": _VLLM,
    "transformers_continuous_batching_config": _VLLM, "vllm_structured_outputs_regex": not_here("answers are free"),
    "vllm_guided_decoding_regex": not_here("answers are free"),
    **{f"vllm_{name}": _VLLM for name in (
        "mode", "model_impl", "enable_sleep_mode", "server_base_url", "server_host", "server_port", "server_timeout", "group_port",
        "gpu_memory_utilization", "max_model_length", "tensor_parallel_size", "importance_sampling_correction", "importance_sampling_mode",
        "importance_sampling_clip_max", "importance_sampling_clip_min", "importance_sampling_cap")},
}
"""Keys of GRPO, which axolotl has in its section `trl`."""

PPO_KEYS: Final[Mapping[str, str | Means]] = {
    "num_ppo_epochs": "ppo_epochs", "num_mini_batches": "ppo_buffer_size", "whiten_rewards": "ppo_whiten_rewards",
    "kl_coef": "ppo_init_kl_coef", "cliprange": "ppo_cliprange", "cliprange_value": "ppo_cliprange_value", "vf_coef": "ppo_vf_coef",
    "gamma": "ppo_gamma", "lam": "ppo_lam", "missing_eos_penalty": "missing_eos_penalty", "response_length": "max_new_tokens",
    "local_rollout_forward_batch_size": "rollout_batch_size", "sft_model_path": "model_name_or_path",
    "model_name_or_path": policy_of_ppo, "reward_model_path": _CLASSIFIER,
    "kl_estimator": only("k1", "the divergence in ppo's rewards is k1"),
    "stop_token": only("eos", "an answer ends with the tokenizer's token"), "stop_token_id": not_here("answers end as the template says"),
    "total_episodes": not_here("the length of a run is num_train_epochs or max_steps"),
    "num_total_batches": not_here("the length of a run is num_train_epochs or max_steps"),
    "num_sample_generations": nothing("answers are written every sample_log_steps"), "exp_name": "run_name",
    **{name: nothing("follows from the batch sizes and the launcher") for name in (
        "world_size", "micro_batch_size", "local_batch_size", "batch_size", "local_mini_batch_size", "mini_batch_size")},
    **{f"reward_shaping_enable_{name}": not_here("rewards are shaped by reward_funcs") for name in ("length", "repetition", "eos")},
    **{f"reward_shaping_{name}": part_of("reward_shaping_enable_length, _repetition and _eos") for name in (
        "length_coef", "repetition_coef", "repetition_ngram", "eos_bonus", "eos_missing_penalty", "eos_out_of_range_penalty",
        "eos_min_len", "eos_max_len")},
}
"""Keys of PPO."""


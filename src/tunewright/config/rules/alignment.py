"""Rules on preferences, feedback and rewards."""

from __future__ import annotations

import os

from tunewright.config.alignment import WITHOUT_REFERENCE
from tunewright.config.literals import show
from tunewright.config.rules.rule import OF_ANSWERS, ONLINE, Broken, Case, Rule
from tunewright.config.run import RunConfig

_SMOOTHED = ("sigmoid", "robust")


def has_reference(run: RunConfig) -> bool:
    """Whether the run compares the policy with a reference model."""
    if run.run.stage == "dpo":
        return run.alignment.pref_loss not in WITHOUT_REFERENCE
    return run.run.stage in ("kto", "ppo") or (run.run.stage == "grpo" and run.alignment.grpo_beta > 0)


def reference_without_use(case: Case) -> str | None:
    alignment = case.run.alignment
    wanted = case.run.run.stage == "dpo" and alignment.pref_loss in WITHOUT_REFERENCE and alignment.ref_model
    return f"pref_loss {alignment.pref_loss} compares the policy with no reference" if wanted else None


def model_parts_without_model(case: Case) -> list[Broken]:
    given = case.run.alignment
    parts = {"ref_model_adapters": (given.ref_model_adapters, "ref_model", given.ref_model),
             "ref_model_quantization_bit": (given.ref_model_quantization_bit, "ref_model", given.ref_model),
             "reward_model_adapters": (given.reward_model_adapters, "reward_model", given.reward_model),
             "reward_model_quantization_bit": (given.reward_model_quantization_bit, "reward_model", given.reward_model)}
    return [Broken(field, f"belongs to {name}, which is absent", f"set {name}, or remove it")
            for field, (part, name, model) in parts.items() if part and not model]


def supervised_loss_twice(case: Case) -> str | None:
    alignment = case.run.alignment
    wanted = case.run.run.stage == "dpo" and alignment.pref_loss == "orpo" and alignment.pref_ftx > 0
    return "adds the supervised loss that pref_loss orpo has already" if wanted else None


def smoothing_of_another_loss(case: Case) -> str | None:
    alignment = case.run.alignment
    wanted = case.run.run.stage == "dpo" and alignment.dpo_label_smoothing > 0 and alignment.pref_loss not in _SMOOTHED
    return f"{show(alignment.dpo_label_smoothing)} is for pref_loss sigmoid and robust, but pref_loss is {alignment.pref_loss}" if (
        wanted) else None


def labels_by_chance(case: Case) -> str | None:
    alignment = case.run.alignment
    wanted = case.run.run.stage == "dpo" and alignment.pref_loss == "robust" and alignment.dpo_label_smoothing == 0.5
    return "0.5 says that labels are pure chance, from which robust DPO can learn nothing" if wanted else None


def no_answer_weighs(case: Case) -> str | None:
    alignment = case.run.alignment
    wanted = case.run.run.stage == "kto" and alignment.kto_chosen_weight == alignment.kto_rejected_weight == 0
    return "0, as the other weight: no answer would count" if wanted else None


def reference_is_not_the_start(case: Case) -> list[Broken]:
    run = case.run
    if not has_reference(run) or run.alignment.ref_model or run.tuning.finetuning_type != "lora":
        return []
    parts = {"pissa_init": (run.lora.pissa_init, "takes its first factors out of the base, so that the policy without its adapter, which "
                            "is the reference, is not the model"),
             "lora_bias": (run.lora.lora_bias != "none", "biases train beside the adapter, so that the policy without it, which is the "
                           "reference, is not the start")}
    return [Broken(field, why) for field, (is_on, why) in parts.items() if is_on]


def unknown_rows_precomputed(case: Case) -> str | None:
    run = case.run
    wanted = run.data.streaming and run.alignment.precompute_ref_log_probs and has_reference(run)
    return "the rows of a stream are not known beforehand" if wanted else None


def ppo_without_reward_model(case: Case) -> str | None:
    wanted = case.run.run.stage == "ppo" and not _scorers(case.run)
    return "ppo needs something that scores answers" if wanted else None


def grpo_without_rewards(case: Case) -> str | None:
    wanted = case.run.run.stage == "grpo" and not _scorers(case.run)
    return "grpo needs something that scores answers" if wanted else None


def weights_of_other_rewards(case: Case) -> str | None:
    weights, scorers = case.run.alignment.reward_weights, _scorers(case.run)
    wanted = case.run.run.stage in ONLINE and weights and len(weights) != scorers
    return f"{len(weights)} weights for {scorers} scorer{'' if scorers == 1 else 's'} of answers" if wanted else None


def answers_without_chance(case: Case) -> list[Broken]:
    run = case.run
    if run.run.stage not in ONLINE:
        return []
    parts = {"do_sample": (not run.generation.do_sample, "false: without chance nothing is tried out", "set do_sample: true"),
             "num_beams": (run.generation.num_beams > 1, "beams look for the likeliest answer, and nothing is tried out", "set it to 1")}
    return [Broken(field, why, mend) for field, (is_on, why, mend) in parts.items() if is_on]


def options_without_known_answers(case: Case) -> list[Broken]:
    run = case.run
    if run.run.stage not in ONLINE:
        return []
    parts = {"auto_find_batch_size": (run.batching.auto_find_batch_size, "how long answers will be is not known beforehand"),
             "torch_compile": (run.kernels.compiles, "layers would be compiled anew for each length of an answer")}
    return [Broken(field, f"{why}, but stage is {run.run.stage}") for field, (is_on, why) in parts.items() if is_on]


def answers_of_another_policy(case: Case) -> str | None:
    run, generation = case.run, case.run.generation
    bounded = [f"{name} {show(value)}" for name, value, plain in (
        ("temperature", generation.temperature, 1.0), ("top_p", generation.top_p, 1.0), ("top_k", generation.top_k, 0),
        ("repetition_penalty", generation.repetition_penalty, 1.0)) if value != plain]
    wanted = run.run.stage in ONLINE and bounded
    return (f"answers are drawn with {', '.join(bounded)}, but the probabilities that are trained are the policy's own (temperature 1, "
            "top_p 1, top_k 0, repetition_penalty 1)") if wanted else None


def ratios_with_dropout(case: Case) -> str | None:
    run = case.run
    wanted = run.run.stage in ONLINE and run.tuning.finetuning_type == "lora" and run.lora.lora_dropout > 0
    return f"{show(run.lora.lora_dropout)} changes the probability ratios of {run.run.stage} by chance" if wanted else None


def _scorers(run: RunConfig) -> int:
    """How many judge the answers."""
    return bool(run.alignment.reward_model) + len(run.alignment.reward_funcs)


def lora_reward_without_adapter(case: Case) -> str | None:
    run = case.run
    is_lora = _scores_by_model(run) and run.alignment.reward_model_type == "lora"
    return f"lora puts the reward model's adapter on the base of the policy's, but finetuning_type is {run.tuning.finetuning_type}" if (
        is_lora and run.tuning.finetuning_type != "lora") else None


def reward_model_of_another_type(case: Case) -> list[Broken]:
    given = case.run.alignment
    if not _scores_by_model(case.run) or given.reward_model is None:
        return []
    is_address = given.reward_model.startswith(("http://", "https://"))
    if given.reward_model_type == "api":
        return [] if is_address else [Broken("reward_model", f"{given.reward_model} is no address, but reward_model_type is api",
                                             "give it as http://host:port/path, or set reward_model_type to full or lora")]
    if is_address:
        return [Broken("reward_model", f"{given.reward_model} is an address, but reward_model_type is {given.reward_model_type}",
                       "set reward_model_type: api")]
    is_path = given.reward_model.startswith((".", "/", "~")) or given.reward_model.count("/") != 1
    is_there = os.path.isdir(os.path.expanduser(given.reward_model))
    return [Broken("reward_model", f"path not found: {given.reward_model}", "give what a run of stage rm wrote")] if (
        is_path and not is_there) else []


def _scores_by_model(run: RunConfig) -> bool:
    return run.run.stage in ("ppo", "grpo") and run.alignment.reward_model is not None


def value_head_taken_for_unused(case: Case) -> str | None:
    wanted = case.run.run.stage in ("rm", "ppo") and case.run.parallel.ddp_find_unused_parameters
    return "would take the value head, which reads what the model gives, for unused, and stop the run" if wanted else None


def token_options_for_answers(case: Case) -> list[Broken]:
    run = case.run
    if run.run.stage not in OF_ANSWERS:
        return []
    wanted = {"label_smoothing_factor": (run.loss.label_smoothing_factor > 0, "it smooths the targets of next-token cross-entropy"),
              "z_loss_weight": (run.loss.z_loss_weight > 0, "it is added to next-token cross-entropy"),
              "neftune_noise_alpha": (run.loss.neftune_noise_alpha is not None, "noise is for supervised fine-tuning"),
              "train_on_prompt": (run.data.train_on_prompt, "answers alone are compared or marked"),
              "mask_history": (run.data.mask_history, "the last answer alone is compared or marked anyhow")}
    return [Broken(field, f"{why}, but stage is {run.run.stage}") for field, (is_on, why) in wanted.items() if is_on]


def routers_out_of_reach(case: Case) -> str | None:
    run = case.run
    wanted = run.loss.moe_aux_loss_coef and run.precision.gradient_checkpointing and run.precision.use_reentrant_gc
    return "what routers decide gets no gradient through reentrant gradient checkpointing" if wanted else None


RULES = (
    Rule("reference-without-use", ("ref_model", "pref_loss", "stage"), reference_without_use,
         "remove ref_model, or choose another pref_loss"),
    Rule("model-parts-without-model", ("ref_model_adapters", "ref_model_quantization_bit", "reward_model_adapters",
                                       "reward_model_quantization_bit", "ref_model", "reward_model"), model_parts_without_model),
    Rule("supervised-loss-twice", ("pref_ftx", "pref_loss", "stage"), supervised_loss_twice, "remove pref_ftx"),
    Rule("smoothing-of-another-loss", ("dpo_label_smoothing", "pref_loss", "stage"), smoothing_of_another_loss, "set it to 0"),
    Rule("labels-by-chance", ("dpo_label_smoothing", "pref_loss", "stage"), labels_by_chance, "write a smaller number"),
    Rule("no-answer-weighs", ("kto_chosen_weight", "kto_rejected_weight", "stage"), no_answer_weighs, "give one of them a weight"),
    Rule("reference-is-not-the-start", ("pissa_init", "lora_bias", "ref_model", "finetuning_type", "stage"), reference_is_not_the_start,
         "name a ref_model", purposes=("train",)),
    Rule("unknown-rows-precomputed", ("precompute_ref_log_probs", "streaming", "stage"), unknown_rows_precomputed, "remove it"),
    Rule("ppo-without-reward-model", ("reward_model", "stage"), ppo_without_reward_model,
         "set reward_model or reward_funcs", purposes=("train",)),
    Rule("grpo-without-rewards", ("reward_funcs", "reward_model", "stage"), grpo_without_rewards, "set reward_funcs or reward_model",
         purposes=("train",)),
    Rule("weights-of-other-rewards", ("reward_weights", "reward_funcs", "reward_model", "stage"), weights_of_other_rewards,
         "give one for each, the reward model's first", purposes=("train", "eval")),
    Rule("answers-without-chance", ("do_sample", "num_beams", "stage"), answers_without_chance, purposes=("train",)),
    Rule("options-without-known-answers", ("auto_find_batch_size", "torch_compile", "stage"),
         options_without_known_answers, "remove it", purposes=("train",)),
    Rule("answers-of-another-policy", ("temperature", "top_p", "top_k", "repetition_penalty", "stage"), answers_of_another_policy,
         "set temperature: 1, top_p: 1, top_k: 0 and repetition_penalty: 1", purposes=("train",), is_error=False),
    Rule("ratios-with-dropout", ("lora_dropout", "stage"), ratios_with_dropout, "set it to 0", purposes=("train",), is_error=False),
    Rule("lora-reward-without-adapter", ("reward_model_type", "reward_model", "finetuning_type", "stage"), lora_reward_without_adapter,
         "set reward_model_type: full, or finetuning_type: lora", purposes=("train",)),
    Rule("reward-model-of-another-type", ("reward_model", "reward_model_type", "stage"), reward_model_of_another_type, purposes=("train",)),
    Rule("value-head-taken-for-unused", ("ddp_find_unused_parameters", "stage"), value_head_taken_for_unused, "remove it",
         purposes=("train",)),
    Rule("token-options-for-answers", ("label_smoothing_factor", "z_loss_weight", "neftune_noise_alpha", "train_on_prompt",
                                       "mask_history", "stage"),
         token_options_for_answers, "remove it"),
    Rule("routers-out-of-reach", ("moe_aux_loss_coef", "use_reentrant_gc", "gradient_checkpointing"), routers_out_of_reach,
         "set use_reentrant_gc: false", purposes=("train",)),
)

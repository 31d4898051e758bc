"""Preferences, feedback and rewards: what rm, dpo, kto, ppo and grpo read."""

from __future__ import annotations

from dataclasses import dataclass

from tunewright.config.param import Alias, param

PREF_LOSSES = ("sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo")
"""The formulas that LLaMA-Factory's document names."""

WITHOUT_REFERENCE = ("orpo", "simpo")
"""Formulas over the policy's own log-probabilities."""


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig:
    """Preference losses, the models besides the policy, and reinforcement learning."""

    pref_beta: float = param(
        0.1, "How strongly dpo and kto hold the policy to the reference: the factor of the log-ratio that is the reward. In ipo it is the "
        "paper's tau, in orpo the weight of the odds ratio, in simpo the scale of the reward.", above=0, llamafactory="pref_beta")
    pref_ftx: float = param(
        0.0, "Weight of the chosen answer's mean negative log-likelihood, added to the loss of each pair.", minimum=0,
        llamafactory="pref_ftx")
    pref_loss: str = param(
        "sigmoid", "Formula of the preference loss: DPO (sigmoid), SLiC's hinge, IPO, KTO on pairs, ORPO, SimPO, or robust DPO.",
        choices=(*PREF_LOSSES, "robust"), llamafactory=Alias("pref_loss", choices=PREF_LOSSES))
    dpo_label_smoothing: float = param(
        0.0, "Probability that a pair is labelled the wrong way round: with pref_loss sigmoid the target is one minus that (conservative "
        "DPO, Mitchell 2023), with robust the loss is corrected for it (Chowdhury et al. 2024).", minimum=0, maximum=0.5,
        llamafactory="dpo_label_smoothing")
    simpo_gamma: float = param(
        0.5, "By how much the chosen answer's reward is to win in SimPO.", minimum=0, llamafactory="simpo_gamma")
    kto_chosen_weight: float = param(1.0, "Weight of desirable answers in the loss.", minimum=0, llamafactory="kto_chosen_weight")
    kto_rejected_weight: float = param(1.0, "Weight of undesirable answers in the loss.", minimum=0, llamafactory="kto_rejected_weight")
    ref_model: str | None = param(
        None, "Reference model: directory or hub id. Absent means the policy without its adapter; where the model's own weights train, the "
        "weights that the run began with.", llamafactory="ref_model")
    ref_model_adapters: tuple[str, ...] = param(
        (), "Adapters of the reference model, merged into it in their order.", example="saves/sft",
        llamafactory=Alias("ref_model_adapters", convert="comma_list"))
    ref_model_quantization_bit: int | None = param(
        None, "Bits to which the reference model is quantised while it is loaded; absent means not at all.", choices=(4, 8),
        llamafactory="ref_model_quantization_bit")
    precompute_ref_log_probs: bool | None = param(
        None, "Compute the reference's log-probabilities once before training, keep them in output_dir and drop the reference model. "
        "Absent means wherever all rows are known beforehand; false asks the reference in every step.")
    reward_model: str | None = param(
        None, "Reward model: what a run of stage rm wrote, or the address of a service.", llamafactory="reward_model")
    reward_model_adapters: tuple[str, ...] = param(
        (), "Adapters of the reward model, merged into it in their order.", example="saves/rm",
        llamafactory=Alias("reward_model_adapters", convert="comma_list"))
    reward_model_quantization_bit: int | None = param(
        None, "Bits to which the reward model is quantised while it is loaded; absent means not at all.", choices=(4, 8),
        llamafactory="reward_model_quantization_bit")
    reward_model_type: str = param(
        "lora", "What reward_model is: an adapter with a value head, a full model with one, or a service over HTTP.",
        choices=("lora", "full", "api"), llamafactory="reward_model_type")
    reward_funcs: tuple[str, ...] = param(
        (), "Functions that score answers: `module:function` or `file.py:function`.", example="rewards.py:length")
    reward_weights: tuple[float, ...] = param(
        (), "Weights in the reward of an answer: of the reward model or service if there is one, then of each of reward_funcs. Absent "
        "means 1 for each.", example="1.0,0.5")
    missing_eos_penalty: float = param(0.0, "What is taken off the reward of an answer that did not end within max_new_tokens.", minimum=0)
    rollout_batch_size: int = param(32, "Answers that a process makes at a time.", minimum=1, maximum=65536, unit="answers")
    sample_log_steps: int = param(
        10, "Steps from one whose answers are written to rollouts.jsonl to the next; 0 writes none.", minimum=0, unit="steps",
        recorded=False)
    ppo_buffer_size: int = param(
        1, "Mini-batches of answers that are collected in each step before training on them; each is an update of its own.", minimum=1,
        maximum=4096, unit="batches", llamafactory="ppo_buffer_size")
    ppo_epochs: int = param(4, "Passes over the collected answers in each step.", minimum=1, maximum=1000, llamafactory="ppo_epochs")
    ppo_score_norm: bool = param(
        False, "Scale scores to mean 0 and variance 1 by those of all scores of the run so far.", llamafactory="ppo_score_norm")
    ppo_target: float = param(
        6.0, "Divergence from the reference that the adaptive penalty steers to.", above=0, unit="nats for each answer",
        llamafactory="ppo_target")
    ppo_whiten_rewards: bool = param(
        False, "Divide the rewards of tokens by their deviation in the step, around their mean, before advantages are computed.",
        llamafactory="ppo_whiten_rewards")
    ppo_init_kl_coef: float = param(
        0.2, "Weight of the divergence from the reference in the rewards of ppo, at the start where it adapts.", minimum=0)
    ppo_adap_kl_ctrl: bool = param(True, "Adapt that weight so that the divergence comes to ppo_target; otherwise it stays.")
    ppo_horizon: int = param(
        10000, "Answers over which the weight follows the divergence: the more, the slower.", minimum=1, unit="answers")
    ppo_gamma: float = param(1.0, "Discount of later rewards, token by token, in ppo.", above=0, maximum=1)
    ppo_lam: float = param(
        0.95, "Decay of generalised advantages: 1 trusts rewards, less trusts the value head.", minimum=0, maximum=1)
    ppo_cliprange: float = param(0.2, "How far a token's probability ratio counts from 1 in ppo.", above=0, below=1)
    ppo_cliprange_value: float = param(0.2, "How far a value may move from what it was when the answer was made.", above=0)
    ppo_vf_coef: float = param(0.1, "Weight of the value head's loss.", minimum=0)
    num_generations: int = param(
        8, "Answers to each prompt, which are compared with each other.", minimum=2, maximum=4096, unit="answers")
    num_iterations: int = param(1, "Updates on the answers of each step in grpo.", minimum=1, maximum=1000)
    scale_rewards: str = param(
        "group", "What a reward's distance from the mean of its group is divided by: the group's standard deviation, that of all rewards "
        "of the step, or nothing (Dr. GRPO).", choices=("group", "batch", "none"))
    importance_sampling_level: str = param(
        "token", "Whose probability ratio is clipped: each token's, or the answer's, the geometric mean over its tokens (GSPO).",
        choices=("token", "sequence"))
    grpo_loss_type: str = param(
        "dapo", "What the loss of answer tokens is divided by: the length of each answer (grpo), all tokens of the micro-batch (bnpo), a "
        "constant (dr_grpo), or all tokens of the step (dapo).", choices=("grpo", "bnpo", "dr_grpo", "dapo"))
    epsilon: float = param(0.2, "How far a token's probability ratio counts below 1, and above it without epsilon_high.", above=0, below=1)
    epsilon_high: float | None = param(
        None, "How far a token's probability ratio counts above 1 (DAPO, Yu et al. 2025, takes 0.28).", above=0, example="0.28")
    grpo_beta: float = param(0.0, "Weight of the divergence from the reference in grpo; at 0 no reference is loaded.", minimum=0)
    kl_estimator: str = param(
        "k3", "Estimator of that divergence from sampled tokens (Schulman 2020).", choices=("k1", "k2", "k3"))

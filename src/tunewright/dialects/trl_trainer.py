"""Which of TRL's trainers a file is for: its files do not say so, but the keys that only one configuration has do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from tunewright.dialects.spelling import is_empty

Trainer = Literal["sft", "reward", "dpo", "cpo", "kto", "grpo", "ppo"]

_OWN: Final[Mapping[Trainer, frozenset[str]]] = {
    "grpo": frozenset((
        "num_generations", "num_generations_eval", "num_iterations", "steps_per_generation", "generation_batch_size", "scale_rewards",
        "importance_sampling_level", "epsilon", "epsilon_high", "delta", "reward_funcs", "reward_weights", "mask_truncated_completions",
        "reward_model_name_or_path", "log_completions", "top_entropy_quantile", "multi_objective_aggregation", "use_bias_correction_kl")),
    "ppo": frozenset((
        "num_ppo_epochs", "num_mini_batches", "total_episodes", "response_length", "stop_token", "sft_model_path", "reward_model_path",
        "missing_eos_penalty", "whiten_rewards", "kl_coef", "cliprange", "cliprange_value", "vf_coef", "lam")),
    "kto": frozenset(("desirable_weight", "undesirable_weight")),
    "cpo": frozenset(("cpo_alpha", "simpo_gamma")),
    "reward": frozenset(("center_rewards_coefficient",)),
    "dpo": frozenset(("label_smoothing", "loss_weights", "rpo_alpha", "f_divergence_type", "f_alpha_divergence_coef", "ld_alpha",
                      "use_weighting", "discopop_tau", "reference_free")),
}
"""Keys that tell, the most telling trainer first: an older or experimental trainer has some of the next one's keys."""

_LOSSES: Final[Mapping[Trainer, frozenset[str]]] = {
    "grpo": frozenset(("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo")),
    "kto": frozenset(("kto", "apo_zero_unpaired")),
    "cpo": frozenset(("simpo", "alphapo")),
    "dpo": frozenset(("sigmoid", "hinge", "ipo", "robust", "kto_pair", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "aot",
                      "aot_unpaired", "aot_pair", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm")),
}

_OF_SEVERAL: Final = ("beta", "precompute_ref_log_probs", "precompute_ref_batch_size", "sync_ref_model", "max_prompt_length",
                      "generate_during_eval", "disable_dropout")
"""Keys of DPO, KTO and ORPO alike."""


def trainer_of(values: Mapping[str, Any]) -> Trainer:
    """The trainer whose keys a file has; of keys that several have, DPO's; of none, SFT's."""
    told = _told(values)
    if told is not None:
        return told
    return "dpo" if any(not is_empty(values.get(key)) for key in _OF_SEVERAL) else "sft"


def is_guessed(values: Mapping[str, Any]) -> bool:
    """Whether the file has only keys that several trainers read."""
    return _told(values) is None and trainer_of(values) == "dpo"


def losses_of(value: Any) -> list[str]:
    """The names that `loss_type` holds: one, several in a list, or several with commas."""
    names = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    return [name.strip() for name in names if isinstance(name, str)]


def _told(values: Mapping[str, Any]) -> Trainer | None:
    names = set(losses_of(values.get("loss_type")))
    for trainer, keys in _OWN.items():
        if names & _LOSSES.get(trainer, frozenset()) or any(not is_empty(values.get(key)) for key in keys):
            return trainer
    return None

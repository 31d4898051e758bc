"""Files of TRL and axolotl on preferences, feedback and rewards in our names, worked by hand from the programs' configuration classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.dialects.test_foreign import read, told
from tunewright.config.table import values
from tunewright.dialects.read import read_config
from tunewright.dialects.trl_trainer import trainer_of

TRL_FILES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"loss_type": "sigmoid", "beta": 0.2, "precompute_ref_log_probs": True},
     {"stage": "dpo", "pref_loss": "sigmoid", "pref_beta": 0.2, "precompute_ref_log_probs": True, "learning_rate": 1e-6,
      "finetuning_type": "full", "cutoff_len": 1024, "per_device_train_batch_size": 8, "lr_scheduler_type": "linear"}),
    ({"loss_type": ["ipo"], "beta": 0.5, "learning_rate": 3e-6}, {"stage": "dpo", "pref_loss": "ipo", "learning_rate": 3e-6}),
    ({"loss_type": "hinge"}, {"stage": "dpo", "pref_loss": "hinge"}),
    ({"loss_type": "robust", "label_smoothing": 0.1}, {"pref_loss": "robust", "dpo_label_smoothing": 0.1}),
    ({"loss_type": "sigmoid", "label_smoothing": 0.1}, {"pref_loss": "sigmoid", "dpo_label_smoothing": 0.0}),
    ({"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.25]}, {"pref_loss": "sigmoid", "pref_ftx": 0.25}),
    ({"rpo_alpha": 0.5}, {"stage": "dpo", "pref_ftx": 0.5}),
    ({"beta": 0.3}, {"stage": "dpo", "pref_beta": 0.3}),
    ({"f_divergence_type": "reverse_kl", "router_aux_loss_coef": 0.01}, {"stage": "dpo", "moe_aux_loss_coef": 0.01}),
    ({"use_peft": True, "lora_dropout": 0.1, "loss_type": "sigmoid"}, {"finetuning_type": "lora", "lora_rank": 16, "lora_dropout": 0.0}),
    ({"use_peft": True, "lora_dropout": 0.1, "disable_dropout": False, "loss_type": "sigmoid"}, {"lora_dropout": 0.1}),
    ({"desirable_weight": 1.5, "undesirable_weight": 0.5, "beta": 0.2},
     {"stage": "kto", "kto_chosen_weight": 1.5, "kto_rejected_weight": 0.5, "pref_beta": 0.2, "learning_rate": 1e-6,
      "disable_shuffling": True}),
    ({"loss_type": "kto", "train_sampling_strategy": "group_by_length"}, {"stage": "kto", "group_by_length": True}),
    ({"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.2, "cpo_alpha": 0.5},
     {"stage": "dpo", "pref_loss": "simpo", "pref_beta": 2.0, "simpo_gamma": 1.2, "pref_ftx": 0.5}),
    ({"loss_type": "simpo"}, {"stage": "dpo", "pref_loss": "simpo", "pref_ftx": 1.0}),
    ({"loss_type": "alphapo"}, {"pref_loss": "simpo", "pref_ftx": 0.0}),
    ({"center_rewards_coefficient": 0.01}, {"stage": "rm", "learning_rate": 1e-4}),
    ({"reward_funcs": ["rewards.share", "pack.module.exact"], "reward_weights": [0.5, 2.0], "num_generations": 4, "beta": 0.04,
      "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "max_completion_length": 64, "temperature": 0.9,
      "epsilon_high": 0.28, "num_iterations": 2, "loss_type": "dr_grpo", "scale_rewards": False, "use_bias_correction_kl": False},
     {"stage": "grpo", "reward_funcs": ("rewards:share", "pack.module:exact"), "reward_weights": (0.5, 2.0), "num_generations": 4,
      "grpo_beta": 0.04, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_new_tokens": 64, "temperature": 0.9,
      "top_p": 1.0, "top_k": 0, "epsilon_high": 0.28, "num_iterations": 2, "grpo_loss_type": "dr_grpo", "scale_rewards": "none",
      "learning_rate": 1e-6}),
    ({"num_generations": 8, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
     {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "max_new_tokens": 512}),
    ({"importance_sampling_level": "sequence", "log_completions": False, "scale_rewards": "batch"},
     {"stage": "grpo", "importance_sampling_level": "sequence", "sample_log_steps": 0, "scale_rewards": "batch",
      "per_device_train_batch_size": 1}),
    ({"sft_model_path": "policy", "model_name_or_path": "base", "num_ppo_epochs": 3, "num_mini_batches": 2, "kl_coef": 0.1,
      "cliprange": 0.3, "cliprange_value": 0.4, "vf_coef": 0.5, "gamma": 0.99, "lam": 0.9, "whiten_rewards": True,
      "response_length": 40, "missing_eos_penalty": 1.0, "local_rollout_forward_batch_size": 16, "stop_token": "eos",
      "kl_estimator": "k1"},
     {"stage": "ppo", "model_name_or_path": "policy", "tokenizer_name_or_path": "base", "ppo_epochs": 3, "ppo_buffer_size": 2,
      "ppo_init_kl_coef": 0.1, "ppo_adap_kl_ctrl": False, "ppo_cliprange": 0.3, "ppo_cliprange_value": 0.4, "ppo_vf_coef": 0.5,
      "ppo_gamma": 0.99, "ppo_lam": 0.9, "ppo_whiten_rewards": True, "max_new_tokens": 40, "missing_eos_penalty": 1.0,
      "rollout_batch_size": 16, "temperature": 0.7, "learning_rate": 5e-5}),
]

AXOLOTL_FILES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"rl": "dpo", "rl_beta": 0.2, "dpo_loss_type": ["robust"], "dpo_label_smoothing": 0.1, "precompute_ref_log_probs": True},
     {"stage": "dpo", "pref_loss": "robust", "pref_beta": 0.2, "dpo_label_smoothing": 0.1, "precompute_ref_log_probs": True}),
    ({"rl": "dpo", "dpo_loss_type": ["sigmoid", "sft"], "dpo_loss_weights": [1.0, 0.5]}, {"pref_loss": "sigmoid", "pref_ftx": 0.5}),
    ({"rl": "ipo"}, {"stage": "dpo", "pref_loss": "ipo"}),
    ({"rl": "orpo", "orpo_alpha": 0.2}, {"stage": "dpo", "pref_loss": "orpo", "pref_beta": 0.2}),
    ({"rl": "orpo", "orpo_alpha": 0.2, "rl_beta": 0.3}, {"pref_beta": 0.3}),
    ({"rl": "dpo", "rl_beta": 0.2, "trl": {"beta": 0.4}}, {"pref_beta": 0.4}),
    ({"rl": "simpo", "simpo_gamma": 1.0, "rl_beta": 2.0}, {"stage": "dpo", "pref_loss": "simpo", "simpo_gamma": 1.0, "pref_ftx": 1.0}),
    ({"rl": "simpo", "cpo_alpha": 0.0}, {"pref_ftx": 0.0}),
    ({"rl": "kto", "kto_desirable_weight": 0.2, "kto_undesirable_weight": 1.5},
     {"stage": "kto", "kto_chosen_weight": 0.2, "kto_rejected_weight": 1.5, "disable_shuffling": True}),
    ({"reward_model": True}, {"stage": "rm"}),
    ({"rl": "dpo", "adapter": "lora", "lora_dropout": 0.05}, {"lora_dropout": 0.0}),
    ({"rl": "grpo", "adapter": "lora", "lora_dropout": 0.05}, {"lora_dropout": 0.05}),
    ({"rl": "grpo", "micro_batch_size": 8, "gradient_accumulation_steps": 2,
      "trl": {"beta": 0.01, "num_generations": 4, "reward_funcs": ["rewards.share"], "reward_weights": [1.0], "max_completion_length": 32,
              "temperature": 0.8, "loss_type": "bnpo", "use_vllm": True}},
     {"stage": "grpo", "grpo_beta": 0.01, "num_generations": 4, "reward_funcs": ("rewards:share",), "reward_weights": (1.0,),
      "max_new_tokens": 32, "temperature": 0.8, "grpo_loss_type": "bnpo", "per_device_train_batch_size": 2,
      "gradient_accumulation_steps": 2}),
    ({"rl": "dpo", "datasets": [{"path": "pairs.jsonl", "type": "chatml.intel", "split": "train"}]}, {"dataset": ("pairs.jsonl",)}),
    ({"rl": "dpo", "datasets": [{"path": "a.jsonl", "type": "chat_template.default", "field_chosen": "good", "field_rejected": "bad"}]},
     {"dataset": ({"file_name": "a.jsonl", "formatting": "openai",
                   "columns": {"messages": "messages", "chosen": "good", "rejected": "bad"}},)}),
    ({"rl": "orpo", "datasets": [{"path": "a.jsonl", "type": {"field_prompt": "q", "field_chosen": "yes", "field_rejected": "no"}}]},
     {"dataset": ({"file_name": "a.jsonl", "formatting": "preference", "columns": {"prompt": "q", "chosen": "yes", "rejected": "no"}},)}),
    ({"rl": "kto", "datasets": [{"path": "a.jsonl", "type": {"field_prompt": "q", "field_completion": "a", "field_label": "good"}}]},
     {"dataset": ({"file_name": "a.jsonl", "formatting": "prompt_completion",
                   "columns": {"prompt": "q", "response": "a", "kto_tag": "good"}},)}),
]


@pytest.mark.parametrize(("program", "given", "wanted"), [
    *(("trl", *case) for case in TRL_FILES), *(("axolotl", *case) for case in AXOLOTL_FILES)])
def test_files_of_every_trainer(program: str, given: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Stage, loss and numbers; and what the program's trainer does without being told."""
    found, _ = read(program, given)
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize(("program", "given", "lines"), [
    ("trl", {"loss_type": ["sigmoid", "bco_pair"]},
     ["f.yaml:1: loss_type: pref_loss is one of sigmoid, hinge, ipo, robust, kto_pair, orpo and simpo, alone or with sft"]),
    ("trl", {"loss_type": "sigmoid", "loss_weights": [0.5]}, [
        "f.yaml:1: loss_weights: the preference loss counts once; pref_ftx is what the supervised part weighs",
        "f.yaml:2: loss_weights: is read together with loss_type"]),
    ("trl", {"loss_type": "apo_zero_unpaired"}, ["f.yaml:1: loss_type: of losses over single answers, there is kto"]),
    ("trl", {"cpo_alpha": 0, "loss_type": "hinge"}, ["f.yaml:2: loss_type: of losses without a reference, there are simpo and orpo"]),
    ("trl", {"loss_type": "cispo"}, [
        "f.yaml:1: loss_type cispo: 'cispo' is not one of grpo, bnpo, dr_grpo, dapo; here it is dapo"]),
    ("trl", {"beta": 0.1}, [
        "TRL's files do not name their trainer, and several have these keys; they are read as DPO's: for KTO add stage=kto to the command, "
        "for ORPO stage=dpo pref_loss=orpo"]),
    ("trl", {"reward_funcs": ["accuracy_reward", "a.b"], "num_generations": 3}, [
        "f.yaml:1: reward_funcs[0]: is one of TRL's own; name a function as module:function"]),
    ("trl", {"num_generations": 3, "per_device_train_batch_size": 4}, [
        "f.yaml:2: per_device_train_batch_size: counts answers there and prompts here, and the answers of one device make no whole groups "
        "of num_generations"]),
    ("trl", {"num_generations": 4, "beta": 0.1}, [
        "TRL weighs the divergence from the reference by the probability ratio (use_bias_correction_kl); here it is as it is"]),
    ("trl", {"rpo_alpha": 1.0}, [
        "of the supervised part beside the preference loss each chosen answer counts the same here; in TRL each of its tokens"]),
    ("trl", {"lam": 0.9, "reward_model_path": "judge", "kl_estimator": "k3", "stop_token_id": 7}, [
        "f.yaml:2: reward_model_path: TRL's reward models are classifiers; reward_model is what a run of stage rm wrote",
        "f.yaml:3: kl_estimator: the divergence in ppo's rewards is k1", "f.yaml:4: stop_token_id: answers end as the template says"]),
    ("trl", {"assistant_only_loss": True, "train_sampling_strategy": "balanced"}, [
        "f.yaml:2: train_sampling_strategy: rows are in a new order in each epoch"]),
    ("axolotl", {"rl": "ebft"}, ["f.yaml:1: rl: of these trainers, there are dpo, ipo, orpo, simpo, kto, grpo, gdpo"]),
    ("axolotl", {"rl": "gdpo"}, ["f.yaml:1: rl: rewards are summed, then compared"]),
    ("axolotl", {"rl": "dpo", "datasets": [{"path": "a", "type": "my.module"}]}, [
        "f.yaml:2: datasets[0].type: not understood; it is left out"]),
    ("axolotl", {"rl": "grpo", "trl": {"num_generations": 4, "unheard_of": 1, "rollout_func": "a.b", "min_p": None},
                 "micro_batch_size": 4}, [
        "f.yaml:2: trl.unheard_of: not understood; it is left out", "f.yaml:2: trl.rollout_func: answers are the policy's own",
        "f.yaml:2: trl.min_p: is empty, and is left out"]),
    ("axolotl", {"rl": "orpo", "rl_beta": 0.1, "orpo_alpha": 0.2}, ["f.yaml:3: orpo_alpha: rl_beta wins over it"]),
])
def test_what_has_no_equivalent_is_told(program: str, given: dict[str, Any], lines: list[str]) -> None:
    """A line for each, with the place; of what the program does without being told, one without."""
    assert told(read(program, given)[1]) == lines


@pytest.mark.parametrize(("given", "trainer"), [
    ({}, "sft"), ({"completion_only_loss": True}, "sft"), ({"loss_type": "nll"}, "sft"), ({"num_generations": None}, "sft"),
    ({"loss_type": "sigmoid"}, "dpo"), ({"beta": 0.1, "max_prompt_length": 9}, "dpo"), ({"desirable_weight": 2.0, "beta": 0.1}, "kto"),
    ({"beta": 0.1, "cpo_alpha": 1.0}, "cpo"), ({"loss_type": "ipo", "cpo_alpha": 1.0}, "cpo"),
    ({"center_rewards_coefficient": 0.1}, "reward"), ({"beta": 0.04, "num_generations": 8}, "grpo"), ({"loss_type": "dapo"}, "grpo"),
    ({"vf_coef": 0.1, "gamma": 1.0}, "ppo")])
def test_the_trainer_follows_from_its_keys(given: dict[str, Any], trainer: str) -> None:
    """Those that only one configuration class has, or the name of its loss."""
    assert trainer_of(given) == trainer


@pytest.mark.parametrize(("name", "given", "kept"), [
    ("trl", {"beta": 0.2, "loss_type": "ipo", "model_name_or_path": "m", "dataset_name": "pairs.jsonl", "output_dir": "out"},
     {"stage": "dpo", "pref_loss": "ipo", "pref_beta": 0.2}),
    ("trl", {"beta": 0.2, "model_name_or_path": "m", "dataset_name": "pairs.jsonl", "output_dir": "out", "use_peft": True},
     {"stage": "kto", "pref_beta": 0.2, "lora_dropout": 0.0}),
    ("trl", {"num_generations": 4, "beta": 0.05, "dataset_name": "p.jsonl", "reward_funcs": ["r.f"], "per_device_train_batch_size": 8},
     {"stage": "grpo", "grpo_beta": 0.05, "per_device_train_batch_size": 2, "temperature": 1.0, "reward_funcs": ("r:f",)}),
    ("axolotl", {"rl": "simpo", "simpo_gamma": 1.0, "rl_beta": 2.0, "base_model": "m", "datasets": [{"path": "p.jsonl", "type": "chatml"}]},
     {"stage": "dpo", "pref_loss": "simpo", "simpo_gamma": 1.0, "pref_beta": 2.0, "pref_ftx": 1.0})])
@pytest.mark.parametrize("target", ["native", "llamafactory"])
def test_the_way_there_and_back(
    name: str, given: dict[str, Any], kept: dict[str, Any], target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    """What `convert` writes is read again as the same run, in our names and, where it has them, in LLaMA-Factory's; a word of the command
    says what the file could not."""
    from tunewright.cli import main

    (tmp_path / "theirs.json").write_text(json.dumps(given))
    words = ["stage=kto"] if kept["stage"] == "kto" else []
    converted = tmp_path / "ours.yaml"
    assert main(["convert", str(tmp_path / "theirs.json"), *words, "--from", name, "--to", target, "-o", str(converted)]) == 0
    report = capsys.readouterr().err
    found = values(read_config([str(converted)], dialect=target).config)
    if kept["stage"] == "grpo" and target == "llamafactory":
        assert "stage grpo" in report  # it has no such stage, and the report says so
        return
    assert {key: found[key] for key in kept} == kept

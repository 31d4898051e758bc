"""Configurations in which runs are compared bit for bit: each method and optimizer once, and every two choices of different kinds."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from tunewright.config.optimizer_names import OPTIMIZERS
from tunewright.selftest.pairwise import Covered, Row, cover
from tunewright.selftest.rows import write_every_kind
from tunewright.selftest.tiny import write_model
from tunewright.selftest.workspace import as_text

Changes = Mapping[str, Any]
STEPS: Final = 8
"""Of a run. An epoch has two to six, so its end lies among them."""

FULL: Final = {"finetuning_type": "full", "learning_rate": 0.001}
STREAM: Final = {"streaming": True, "buffer_size": 7}
PACKED: Final = {"packing": True, "cutoff_len": 64}
MIXED: Final = {"mix_strategy": "interleave_over", "interleave_probs": "0.7,0.3"}
EVALUATED: Final = {"eval_strategy": "steps", "eval_steps": 2}
SAMPLED: Final = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 8}
STAGES: Final[Mapping[str, Changes]] = {
    "sft": {"dataset": "{path}/rows.jsonl"},
    "pt": {"stage": "pt", "dataset": "{path}/documents.jsonl", "cutoff_len": 64},
    "rm": {"stage": "rm", "dataset": "{path}/pairs.jsonl"},
    "dpo": {"stage": "dpo", "dataset": "{path}/pairs.jsonl"},
    "kto": {"stage": "kto", "dataset": "{path}/marked.jsonl"},
    "ppo": {"stage": "ppo", "dataset": "{path}/prompts.jsonl", "reward_funcs": "{path}/rewards.py:share", "ppo_epochs": 2,
            "ppo_buffer_size": 2, "ppo_score_norm": True, "ppo_target": 0.05, "ppo_horizon": 20, "sample_log_steps": 1, **SAMPLED},
    "grpo": {"stage": "grpo", "dataset": "{path}/prompts.jsonl", "reward_funcs": "{path}/rewards.py:share", "num_generations": 4,
             "num_iterations": 2, "grpo_beta": 0.04, "sample_log_steps": 1, **SAMPLED}}
DIMENSIONS: Final[Mapping[str, Mapping[str, Changes]]] = {
    "stage": STAGES,
    "tuning": {"LoRA": {}, "full": FULL, "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1}, "DoRA": {"use_dora": True},
               "PiSSA": {"pissa_init": True, "pissa_iter": 4}, "4-bit base": {"quantization_bit": 4}},
    "order": {"shuffled": {}, "by length": {"group_by_length": True}, "sortish": {"sortish_sampler": True},
              "of the files": {"disable_shuffling": True, "dataloader_drop_last": True}, "mixture": MIXED},
    "source": {"in memory": {}, "stream": STREAM},
    "layout": {"end to end": {}, "padded": {"padding_free": False}, "packed": PACKED},
    "accumulation": {"one batch": {}, "three batches": {"gradient_accumulation_steps": 3}},
    "workers": {"no worker": {}, "two workers": {"dataloader_num_workers": 2}},
    "ranks": {"one rank": {}, "two ranks": {"num_processes": 2}},
    "optimizer": {"AdamW": {}, "Adafactor": {"optim": "adafactor"}, "8-bit Lion": {"optim": "lion_8bit"}},
    "precision": {"float32": {}, "bf16": {"bf16": True}, "bf16 weights": {"pure_bf16": True}},
    "evaluation": {"not evaluated": {}, "evaluated": EVALUATED, "best model": {**EVALUATED, "load_best_model_at_end": True}},
    "noise": {"no noise": {}, "dropout": {"lora_dropout": 0.2}, "NEFTune": {"neftune_noise_alpha": 5}},
    "recomputation": {"activations kept": {}, "layers": {"gradient_checkpointing": True},
                      "modules": {"gradient_checkpointing": True, "recompute_modules": "model.layers.{*}.mlp"}},
}
LOSSES: Final = ("sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo", "robust")
ALONE: Final[Mapping[str, Changes]] = {
    **{f"optimizer {name}": {**FULL, "optim": name} for name in OPTIMIZERS},
    "GaLore": {**FULL, "use_galore": True, "galore_rank": 4, "galore_update_interval": 3},
    "BAdam, layers": {**FULL, "use_badam": True, "badam_switch_interval": 3},
    "BAdam, layers at random": {**FULL, "use_badam": True, "badam_switch_interval": 2, "badam_switch_mode": "random"},
    "BAdam, parts of weights": {**FULL, "use_badam": True, "badam_mode": "ratio", "badam_switch_interval": 3},
    "Adam-mini": {**FULL, "use_adam_mini": True},
    **{f"dpo, {loss}": {**STAGES["dpo"], **(FULL if number % 2 else {"lora_dropout": 0.2}), "pref_loss": loss,
                        **({"dpo_label_smoothing": 0.1} if loss == "robust" else {})} for number, loss in enumerate(LOSSES)},
    "dpo, reference asked in each step": {**STAGES["dpo"], **FULL, "precompute_ref_log_probs": False},
    "kto, reference asked in each step": {**STAGES["kto"], "lora_dropout": 0.2, "precompute_ref_log_probs": False},
    "grpo, Dr. GRPO": {**STAGES["grpo"], **FULL, "grpo_loss_type": "dr_grpo", "scale_rewards": "none"},
    "grpo, GSPO": {**STAGES["grpo"], "grpo_loss_type": "grpo", "importance_sampling_level": "sequence"},
    "LoRA+": {"loraplus_lr_ratio": 4, "lora_dropout": 0.2},
    "rsLoRA, some modules": {"use_rslora": True, "lora_target": "q_proj,v_proj"},
    "LoRA, embeddings in full": {"additional_target": "embed_tokens", "lora_bias": "lora_only"},
    "8-bit base": {"quantization_bit": 8, "lora_dropout": 0.2},
    "PiSSA, converted": {"pissa_init": True, "pissa_iter": -1, "pissa_convert": True},
    "a model from scratch": {**FULL, "train_from_scratch": True},
    "a mixture of experts": {**FULL, "model_name_or_path": "{path}/experts", "moe_aux_loss_coef": 0.01},
    "recurrent layers": {"model_name_or_path": "{path}/recurrent"},
    "restarts, warm-up": {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": '{"num_cycles": 2}', "warmup_steps": 3},
    "warm-up, plateau, decay": {"lr_scheduler_type": "warmup_stable_decay", "warmup_steps": 2,
                                "lr_scheduler_kwargs": '{"num_decay_steps": 3, "num_stable_steps": 3}'},
    "answers in evaluation": {**EVALUATED, "val_size": 4, "predict_with_generate": True, "do_sample": True, "max_new_tokens": 4},
    "rows cut into pieces, packed": {**PACKED, "cutoff_len": 32, "cutoff_policy": "split", "val_size": 3, "eval_strategy": "epoch"},
    "a blend of token files": {"stage": "pt", "data_manager_type": "mg", "dataset": "0.3,{path}/a,0.7,{path}/b", "split": "99,1,0",
                               "cutoff_len": 64, "eval_strategy": "steps", "eval_steps": 5, "num_processes": 2},
    "prepared sets": {**PACKED, "tokenized_path": "{path}/tokens", "num_processes": 2},
    "new tokens": {"add_tokens": "<step>", "resize_vocab": True, "init_special_tokens": "noise_init", "num_processes": 2},
    "stream, packed mixture, all at once": {**STREAM, **PACKED, **MIXED, "gradient_accumulation_steps": 3, "dataloader_num_workers": 2,
                                            "num_processes": 2, "lora_dropout": 0.2},
    "stream, rows held out": {**STREAM, **EVALUATED, "val_size": 5, "padding_free": True, "dataloader_num_workers": 2},
    "stream in the order of the files": {**STREAM, "buffer_size": 16384, "disable_shuffling": True, "dataloader_drop_last": True},
}
SAMPLE: Final = ("optimizer adamw_8bit", "GaLore", "BAdam, layers at random", "8-bit base", "PiSSA, converted", "a mixture of experts",
                 "dpo, robust", "dpo, kto_pair", "dpo, reference asked in each step", "kto, reference asked in each step", "grpo, Dr. GRPO",
                 "stream, packed mixture, all at once", "stream, rows held out", "stream in the order of the files", "sample ppo",
                 "sample rm")
"""Some of `ALONE`, and the stages that are in none of these."""
OF_SAMPLE: Final[Mapping[str, Changes]] = {
    "sample ppo": {**STAGES["ppo"], **FULL, "gradient_accumulation_steps": 3},
    "sample rm": {**STAGES["rm"], **EVALUATED, "load_best_model_at_end": True, "group_by_length": True}}


def prepare(place: Path) -> Path:
    """Models and rows for every set-up."""
    for name, kind in (("model", "llama"), ("experts", "qwen3_moe"), ("recurrent", "qwen3_next")):
        write_model(place / name, kind=kind)
    write_every_kind(place)
    return place


def settings_of(changes: Changes, place: Path, output_dir: Path) -> dict[str, str]:
    """The configuration of a set-up: a checkpoint at every step, all of them kept; four rows in a batch over all ranks, two where several
    batches make a step, or where rows are packed."""
    ranks = changes.get("num_processes", 1)
    together = 4 >> ("gradient_accumulation_steps" in changes) >> ("packing" in changes)
    chosen = {"model_name_or_path": "{path}/model", "dataset": "{path}/rows.jsonl", "output_dir": output_dir, "max_steps": STEPS,
              "save_steps": 1, "logging_steps": 1, "learning_rate": 0.01, "plot_loss": False, "disable_tqdm": True, "num_processes": 1,
              "use_cpu": True, "per_device_train_batch_size": max(together // ranks, 1), **changes}
    if not chosen.get("streaming"):
        chosen["data_cache_dir"] = "none"
    if "mix_strategy" in chosen:
        chosen["dataset"] = f"{chosen['dataset']},{chosen['dataset'].replace('.jsonl', '_more.jsonl')}"
    if "eval_strategy" in chosen and "val_size" not in chosen and "split" not in chosen:
        chosen["eval_dataset"] = chosen["dataset"].partition(",")[0].replace(".jsonl", "_held_out.jsonl")
    return {name: as_text(value).replace("{path}", str(place)) for name, value in chosen.items()}


def merged(row: Row) -> Changes:
    """The changes of a combination of levels."""
    return {name: value for dimension, level in row.items() for name, value in DIMENSIONS[dimension][level].items()}


def name_of(row: Row) -> str:
    """Its stage, and whatever is not the first of its dimension."""
    return ", ".join(level for dimension, level in row.items() if dimension == "stage" or level != next(iter(DIMENSIONS[dimension])))


@cache
def combined() -> Covered:
    """Combinations in which every two levels meet that our own rules let meet. A combination in which a choice would have no effect is
    refused, too."""
    from tunewright.dialects.read import examine

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "model").mkdir()
        (place / "model" / "config.json").write_text("{}", encoding="utf-8")
        write_every_kind(place)

        def accepts(row: Row) -> bool:
            settings = settings_of(merged(row), place, place / "run")
            examined = examine([f"{name}={value}" for name, value in settings.items()], purpose="train")
            return not examined.problems and not examined.reading.notes

        return cover({name: tuple(levels) for name, levels in DIMENSIONS.items()}, accepts)


def every() -> dict[str, Changes]:
    """All set-ups by name."""
    return {**ALONE, **{name_of(row): merged(row) for row in combined().rows}}

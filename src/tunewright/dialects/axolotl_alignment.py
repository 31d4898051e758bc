"""The keys of axolotl's files (2026) that are about preferences, feedback and rewards, in our names: `rl` and what it reads.

axolotl hands them to TRL, its section `trl` as it stands; so what TRL does without being told is done there, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from tunewright.dialects.spelling import Means, Meant, is_empty, is_on, not_here, nothing, part_of
from tunewright.dialects.trl_alignment import GRPO_KEYS, NO_CUT, loss_of, prompts_of

_STAGES: Final[Mapping[str, tuple[str, str | None]]] = {
    "dpo": ("dpo", None), "ipo": ("dpo", "ipo"), "orpo": ("dpo", "orpo"), "simpo": ("dpo", "simpo"), "kto": ("kto", None),
    "grpo": ("grpo", None), "gdpo": ("grpo", None)}
"""`rl` -> our stage, and the loss of stage dpo."""
_BATCH: Final = "micro_batch_size"


def is_aligned(values: Mapping[str, Any]) -> bool:
    """Whether the file is for anything but texts and conversations."""
    return str(values.get("rl")) in _STAGES or is_on(values.get("reward_model"))


def alignment_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """What axolotl does in these trainers without being told, where we do otherwise."""
    kind = values.get("rl")
    found: dict[str, Any] = {}
    if sets_dropout_to_zero(values):
        found["lora_dropout"] = 0.0
    if kind == "simpo":
        found["pref_ftx"] = 1.0
    if kind == "kto" and not is_on(values.get("group_by_length")):
        found["disable_shuffling"] = True
    if _is_grpo(values):
        found |= {"max_new_tokens": 512, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "cutoff_len": NO_CUT, **(_prompts(values) or {})}
    return found


def alignment_remarks(values: Mapping[str, Any]) -> tuple[str, ...]:
    """What it does without being told that is not done here."""
    if values.get("rl") == "simpo" and values.get("cpo_alpha", 1.0) != 0:
        return ("of the supervised part beside the preference loss each chosen answer counts the same here; in TRL each of its tokens",)
    return ()


def sets_dropout_to_zero(values: Mapping[str, Any]) -> bool:
    """Whether TRL turns an adapter's dropout off in this trainer: in all but GRPO's."""
    return is_aligned(values) and not _is_grpo(values)


def dropout(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    """The adapter's, where it stays."""
    if sets_dropout_to_zero(values):
        return [Meant(None, why="TRL sets it to 0 in this trainer", is_lost=False)]
    return [Meant("lora_dropout", value)]


def of_batches(name: str) -> Means:
    """A number of rows or of micro-batches: in GRPO of answers there, of prompts here."""

    def meant(value: Any, values: Mapping[str, Any]) -> list[Meant]:
        if not _is_grpo(values):
            return [Meant(name, value)]
        found = _prompts(values)
        return [Meant(name, found[name])] if found else [Meant(None, why="counts answers there and prompts here, and the answers of one "
                                                               "device make no whole groups of num_generations")]

    return meant


def dataset_of_answers(entry: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """How rows of pairs or of marked answers are understood, and the keys that say so: columns that are named, else the first row."""
    kind, read = entry.get("type"), {"path", "data_files", "type"}
    if isinstance(kind, Mapping):
        return _named_columns(kind, read)
    name = str(kind or "").partition(".")[0]
    if name == "chat_template":
        columns = {ours: entry[theirs] for ours, theirs in (
            ("messages", "field_messages"), ("chosen", "field_chosen"), ("rejected", "field_rejected")) if not is_empty(entry.get(theirs))}
        usual = {"messages": "messages", "chosen": "chosen", "rejected": "rejected"}
        layout = {"formatting": "openai", "columns": {**usual, **columns}} if columns else {}
        return layout, read | {"field_messages", "field_chosen", "field_rejected"}
    return {}, read if name in ("", "chatml", "llama3") else read - {"type"}


def _named_columns(kind: Mapping[str, Any], read: set[str]) -> tuple[dict[str, Any], set[str]]:
    """A prompt with two answers, or with one and its mark. Texts that put columns together are not read."""
    marked = "field_completion" in kind or "field_label" in kind
    wanted = (("prompt", "field_prompt"), ("response", "field_completion"), ("kto_tag", "field_label"), ("system", "field_system")) if (
        marked) else (("prompt", "field_prompt"), ("chosen", "field_chosen"), ("rejected", "field_rejected"), ("system", "field_system"))
    usual = {"prompt": "prompt", "response": "completion", "kto_tag": "label"} if marked else {}
    columns = {**usual, **{ours: kind[theirs] for ours, theirs in wanted if not is_empty(kind.get(theirs))}}
    layout = {"formatting": "prompt_completion" if marked else "preference", "columns": columns}
    return layout, read if set(kind) <= {theirs for _, theirs in wanted} else read - {"type"}


def _is_grpo(values: Mapping[str, Any]) -> bool:
    return values.get("rl") in ("grpo", "gdpo")


def _prompts(values: Mapping[str, Any]) -> dict[str, int] | None:
    return prompts_of({**values, **_section(values)}, _BATCH, 1)


def _section(values: Mapping[str, Any]) -> Mapping[str, Any]:
    given = values.get("trl")
    return given if isinstance(given, Mapping) else {}


def _rl(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    if not isinstance(value, str) or value not in _STAGES:
        return [Meant(None, why=f"of these trainers, there are {', '.join(_STAGES)}")]
    stage, loss = _STAGES[value]
    found = [Meant("stage", stage), *([Meant("pref_loss", loss)] if loss else [])]
    return [*found, Meant(None, why="rewards are summed, then compared")] if value == "gdpo" else found


def _reward_model(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    return [Meant("stage", "rm")] if is_on(value) else [Meant(None, why="is off, and is left out", is_lost=False)]


def _beta(*stronger: str) -> Means:
    """The divergence's weight in GRPO, elsewhere the factor of the log-ratio; of several keys, the section's wins, then `rl_beta`."""

    def meant(value: Any, values: Mapping[str, Any]) -> list[Meant]:
        given = {"trl.beta": _section(values).get("beta"), "rl_beta": values.get("rl_beta")}
        winner = next((key for key in stronger if not is_empty(given[key])), None)
        if winner is not None:
            return [Meant(None, why=f"{winner} wins over it", is_lost=False)]
        return [Meant("grpo_beta" if _is_grpo(values) else "pref_beta", value)]

    return meant


def _loss(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    if values.get("rl") != "dpo":
        return [Meant(None, why="is read with rl dpo only", is_lost=False)]
    return loss_of("dpo", value, values.get("dpo_loss_weights"))


def _smoothing(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    names = values.get("dpo_loss_type")
    if "robust" in (names if isinstance(names, list) else [names]):
        return [Meant("dpo_label_smoothing", value)]
    return [Meant(None, why="TRL reads it with robust and exo_pair only", is_lost=False)]


def _trl(value: Any, values: Mapping[str, Any]) -> list[Meant]:
    """The section: keys of GRPO, and `beta` of any trainer."""
    if not isinstance(value, Mapping):
        return [Meant(None, why="not a mapping; it is left out")]
    inside = {**values, **value}
    found: list[Meant] = []
    for key, inner in value.items():
        means = _SECTION_KEYS.get(key)
        if is_empty(inner):
            meant = [Meant(None, why="is empty, and is left out", is_lost=False)]
        elif means is None:
            meant = [Meant(None, why="not understood; it is left out")]
        else:
            meant = [Meant(means, inner)] if isinstance(means, str) else means(inner, inside)
        found += [replace(one, label=f"trl.{one.label or key}") for one in meant]
    return found


_FAST: Final = nothing("the policy itself makes the answers")
_SECTION_KEYS: Final[Mapping[str, str | Means]] = {
    **GRPO_KEYS, "beta": _beta(), "loss_type": "grpo_loss_type", "max_completion_length": "max_new_tokens",
    "sync_ref_model": not_here("the reference stays what it was"), "ref_model_mixup_alpha": part_of("sync_ref_model"),
    "ref_model_sync_steps": part_of("sync_ref_model"), "use_liger_loss": nothing("changes the speed only"),
    "rollout_func": not_here("answers are the policy's own"), "async_prefetch": not_here("each step makes answers of its own"),
    "use_data_producer": not_here("each step makes answers of its own"), "replay_buffer_size": not_here("answers are trained once made"),
    "reroll_start_fraction": not_here("prompts are answered once"), "reroll_max_groups": part_of("reroll_start_fraction"),
    "replay_recompute_logps": part_of("replay_buffer_size"), "skip_zero_advantage_batches": nothing("their gradient is 0 anyway"),
    **{name: _FAST for name in ("prefetch_depth", "vllm_sync_interval", "streaming_partial_batch", "streaming_min_groups",
                                "reward_num_workers", "vllm_lora_sync")},
}

ALIGNMENT_KEYS: Final[Mapping[str, str | Means]] = {
    "rl": _rl, "reward_model": _reward_model, "process_reward_model": not_here("rewards are for whole answers"),
    "center_rewards_coefficient": not_here("rewards are not drawn to 0"), "trl": _trl, "vllm": _FAST,
    "rl_beta": _beta("trl.beta"), "orpo_alpha": _beta("trl.beta", "rl_beta"), "simpo_gamma": "simpo_gamma", "cpo_alpha": "pref_ftx",
    "kto_desirable_weight": "kto_chosen_weight", "kto_undesirable_weight": "kto_rejected_weight",
    "dpo_loss_type": _loss, "dpo_loss_weights": part_of("dpo_loss_type"), "dpo_label_smoothing": _smoothing, "rpo_alpha": "pref_ftx",
    "dpo_use_weighting": not_here("pairs count alike"), "dpo_padding_free": "padding_free",
    "dpo_use_liger_kernel": nothing("changes the speed only"), "precompute_ref_log_probs": "precompute_ref_log_probs",
    "max_prompt_len": not_here("prompts are not cut by themselves; sequence_len is for prompt and answer together"),
    "lora_dropout": dropout, _BATCH: of_batches("per_device_train_batch_size"),
    "gradient_accumulation_steps": of_batches("gradient_accumulation_steps"),
}
"""Keys of `rl`, and those that mean something else beside it."""

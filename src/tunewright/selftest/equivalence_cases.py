"""The runs whose first steps are compared, and what is done to them. Each trains on eight rows, which are one step."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tunewright.config.kernels import FAST_PATHS

if TYPE_CHECKING:
    from tunewright.selftest.first_step import Step

ROWS: Final = 8
RANKS: Final = 2
RUN: Final[Mapping[str, Any]] = {
    "model_name_or_path": "{folder}/model", "per_device_train_batch_size": ROWS, "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0,
    "lr_scheduler_type": "constant", "num_train_epochs": 1, "logging_strategy": "no", "save_strategy": "no", "plot_loss": False,
    "disable_tqdm": True, "data_cache_dir": "none", "use_cpu": True}
TUNINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "LoRA": {"finetuning_type": "lora", "lora_dropout": 0}, "full": {"finetuning_type": "full"}}
TOLERANCE: Final = 1e-10
IN_FLOAT32: Final = "sft of grouped experts, in float32 to 1e-5"
"""torch multiplies groups of float64 numbers nowhere."""
_TOGETHER: Final = {"pt": "pt and sft", "sft": "pt and sft", "rm": "rm and kto", "kto": "rm and kto", "ppo": "ppo and grpo",
                    "grpo": "ppo and grpo"}
"""Stages whose steps are made in one process: the libraries take longer to import than most steps to make."""
FIRST: Final = ("pt", "sft", "sft of experts", "rm", "dpo, sigmoid", "kto", "ppo", "grpo, dapo")
"""One run of each stage, and one with experts, has all changes; others, that differ in their loss, have what a loss can depend on."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a run trains. `has_reference`: it is compared with another model; `shares`: rows have a prompt or a
    beginning in common that is computed once; `splits`: its loss is that of the step, not of micro-batches. `tolerance`: of the loss or a
    metric relative to it, of a gradient relative to the largest one of its tensor."""

    stage: str
    settings: Mapping[str, Any]
    has_reference: bool = False
    shares: bool = True
    splits: bool = True
    tolerance: float = TOLERANCE


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to a run. `shows`: whether a step was made as the change asks, beside the step of the run as it was."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    ranks: int = 1
    shows: Callable[[Step, Step], bool] = lambda found, base: True


_ANSWERS: Final = {"dataset": "{folder}/prompts.jsonl", "reward_funcs": "{folder}/rewards.py:share", "temperature": 1.0, "top_p": 1.0,
                   "top_k": 0, "max_new_tokens": 6}
_PPO: Final = {"stage": "ppo", "ppo_epochs": 2, "ppo_cliprange": 0.05, "ppo_init_kl_coef": 0.3, **_ANSWERS}
_GRPO: Final = {"stage": "grpo", "num_generations": 3, "num_iterations": 2, "epsilon": 0.01, "grpo_beta": 0.2, **_ANSWERS}
_EXPERTS: Final = {"model_name_or_path": "{folder}/experts", "dataset": "{folder}/rows.jsonl", "moe_grouped_gemm": False}
_PAIRS: Final = {"stage": "dpo", "dataset": "{folder}/pairs.jsonl"}
_REFERRED: Final = {"sigmoid": {"dpo_label_smoothing": 0.1}, "robust": {"dpo_label_smoothing": 0.1}, "hinge": {}, "ipo": {}, "kto_pair": {}}
_FREE: Final = ("orpo", "simpo")
SUBJECTS: Final[Mapping[str, Subject]] = {
    "pt": Subject("pt", {"stage": "pt", "dataset": "{folder}/documents.jsonl", "packing": False}),
    "sft": Subject("sft", {"dataset": "{folder}/rows.jsonl"}),
    "sft of experts": Subject("sft", _EXPERTS),
    "sft of experts in balance": Subject("sft", {**_EXPERTS, "moe_aux_loss_coef": 0.1}, shares=False),
    "sft of grouped experts": Subject("sft", _EXPERTS, tolerance=1e-5),
    "rm": Subject("rm", {"stage": "rm", "dataset": "{folder}/pairs.jsonl"}),
    **{f"dpo, {loss}": Subject("dpo", {**_PAIRS, "pref_loss": loss, "pref_beta": 0.5, "pref_ftx": 0.25, **more}, has_reference=True)
       for loss, more in _REFERRED.items()},
    **{f"dpo, {loss}": Subject("dpo", {**_PAIRS, "pref_loss": loss}) for loss in _FREE},
    "kto": Subject("kto", {"stage": "kto", "dataset": "{folder}/marked.jsonl", "kto_chosen_weight": 1.5}, has_reference=True, shares=False),
    "ppo": Subject("ppo", _PPO, has_reference=True, shares=False),
    "ppo, white": Subject("ppo", {**_PPO, "ppo_score_norm": True, "ppo_whiten_rewards": True}, has_reference=True, shares=False),
    "grpo, dapo": Subject("grpo", _GRPO, has_reference=True),
    "grpo, grpo": Subject("grpo", {**_GRPO, "grpo_loss_type": "grpo", "scale_rewards": "batch"}, has_reference=True),
    "grpo, dr_grpo": Subject("grpo", {**_GRPO, "grpo_loss_type": "dr_grpo", "scale_rewards": "none"}, has_reference=True),
    # Its loss is by definition the mean over micro-batches.
    "grpo, bnpo": Subject("grpo", {**_GRPO, "grpo_loss_type": "bnpo"}, has_reference=True, splits=False),
    "gspo": Subject("grpo", {**_GRPO, "importance_sampling_level": "sequence", "grpo_loss_type": "grpo"}, has_reference=True)}


def _micro_batches(number: int) -> Callable[[Step, Step], bool]:
    return lambda found, base: set(found.micro_batches) == {number}


def _without(line: str) -> Callable[[Step, Step], bool]:
    """What the run tells of a fast path is not told."""
    return lambda found, base: any(line in one for one in base.told) and not any(line in one for one in found.told)


def _recomputed(found: Step, base: Step) -> bool:
    """Modules ran more often."""
    return found.calls > base.calls


def _unshared(found: Step, base: Step) -> bool:
    """What rows have in common was computed once before, and no longer."""
    shared = ("in common: computed once", "once for all their answers")
    return [any(said in line for line in step.told for said in shared) for step in (base, found)] == [True, False]


def _fewer_sequences(found: Step, base: Step) -> bool:
    """Of the same rows."""
    packed, rows = (sum(len(batch.sample_ids) for batch in step.batches[0]) for step in (found, base))
    return 1 < packed < rows == ROWS


_SPLITS: Final = {"4 x 2": (4, 2), "2 x 4": (2, 4), "3 x 3": (3, 3), "1 x 8": (1, 8)}
"""Rows of a micro-batch, and micro-batches; of 3 x 3 the last has two rows."""
_RANKED: Final = {"4 x 1 on two ranks": (4, 1), "2 x 2 on two ranks": (2, 2), "3 x 2 on two ranks": (3, 2)}
"""The same on each rank; of 3 x 2 the second rank has no row in its last micro-batch, and runs a stand-in."""
_NOT_TAKEN: Final = {
    "prefix": _unshared, "loss": _without("loss: from hidden states"), "lora": _without("LoRA: layers that read one input"),
    "mlp": _without("gated MLPs: one activation"), "norm": _without("RMSNorm: torch's own"),
    "rotary": _without("rotary positions: in two passes")}
_SPLIT: Final = {
    name: Change({"per_device_train_batch_size": rows, "gradient_accumulation_steps": number}, ranks, _micro_batches(number))
    for ranks, splits in ((1, _SPLITS), (RANKS, _RANKED)) for name, (rows, number) in splits.items()}
_CHANGES: Final = {
    "padded": Change({"padding_free": False}, shows=_without("each row by itself, without padding")),
    "layers recomputed": Change({"gradient_checkpointing": True}, shows=_recomputed),
    "layers recomputed, reentrant": Change({"gradient_checkpointing": True, "use_reentrant_gc": True}, shows=_recomputed),
    "MLPs recomputed": Change({"gradient_checkpointing": True, "recompute_modules": "model.layers.{*}.mlp"}, shows=_recomputed),
    "loss of 7 tokens at a time": Change({"chunk_loss_size": 7}),
    "two data-loader workers": Change({"dataloader_num_workers": 2})}
_ASKED: Final = {"reference asked in the step": Change({"precompute_ref_log_probs": False})}
_COMPILED: Final = {"layers compiled": Change({"torch_compile_backend": "eager"}, shows=_without("gated MLPs: one activation"))}
_GROUPED: Final = {"experts in one product": Change({"moe_grouped_gemm": True}),
                   "experts in one product, 4 x 2": Change({"moe_grouped_gemm": True, **_SPLIT["4 x 2"].settings})}
_OF_LOSSES: Final = (*_SPLIT, "padded", "packed", "layers recomputed", *_ASKED, "without the fast path prefix", "without any fast path")


def _packed(cutoff_len: int) -> dict[str, Change]:
    """Rows in sequences of so many tokens."""
    packed = {"packing": True, "cutoff_len": cutoff_len}
    by_two = {**packed, "per_device_train_batch_size": 2}
    return {
        "packed": Change(packed, shows=_fewer_sequences),
        "packed, 2 x 4": Change({**by_two, "gradient_accumulation_steps": 4}, shows=_fewer_sequences),
        "packed, 2 x 2 on two ranks": Change({**by_two, "gradient_accumulation_steps": 2}, RANKS)}


def group_of(name: str) -> str:
    """The group of a subject."""
    subject = SUBJECTS[name]
    return IN_FLOAT32 if subject.tolerance > TOLERANCE else _TOGETHER.get(subject.stage, subject.stage)


def changes(name: str, tuning: str) -> dict[str, Change]:
    """What is done to the run of a subject."""
    subject, found = SUBJECTS[name], dict(_CHANGES)
    if group_of(name) == IN_FLOAT32:
        return _GROUPED
    if subject.splits:
        found |= _SPLIT
    if subject.stage in ("pt", "sft"):
        found |= _packed(96 if subject.stage == "sft" else 32)
    if subject.stage in ("dpo", "kto") and subject.has_reference:
        found |= _ASKED
    if name == "sft":
        found |= _COMPILED
    paths = [path for path in FAST_PATHS if path != "weights" and not (  # which there is in mixed precision only; these are exact numbers
        (path == "prefix" and not subject.shares) or (path == "lora" and tuning == "full") or (path == "mlp" and "experts" in name))]
    for path in paths:
        found[f"without the fast path {path}"] = Change({"slow_paths": path}, shows=_NOT_TAKEN[path])
    every = Change({"slow_paths": ",".join(paths)}, shows=lambda one, base: all(_NOT_TAKEN[path](one, base) for path in paths))
    found["without any fast path"] = every
    return found if name in FIRST else {change: what for change, what in found.items() if change in _OF_LOSSES}


def settings(folder: Path, name: str, tuning: str, change: Change | None = None) -> dict[str, Any]:
    """Of a run of a subject, with a change. A model that trains whole is compared with another than itself."""
    subject = SUBJECTS[name]
    other = {"ref_model": "{folder}/other"} if subject.has_reference and tuning == "full" else {}
    found = {**RUN, **TUNINGS[tuning], **subject.settings, **other, **(change.settings if change else {})}
    return {key: value.replace("{folder}", str(folder)) if isinstance(value, str) else value for key, value in found.items()}


REWARD: Final = "def share(completions, **columns):\n    return [text.count('a') - len(text) / 9 for text in completions]\n"
END: Final = 2
"""The token that ends an answer."""


def write_inputs(folder: Path) -> None:
    """Two models of one shape, one with experts, and eight rows of each kind, some with the same system prompt."""
    from tunewright.selftest.tiny import write_model

    for name, kind, seed in (("model", "llama", 0), ("other", "llama", 1), ("experts", "qwen3_moe", 0)):
        _widen(write_model(folder / name, kind=kind, seed=seed))
    chance = random.Random(0)
    systems = [_words(chance, 4, 8), _words(chance, 4, 8)]
    prompts = [{"system": chance.choice(systems), "instruction": _words(chance, 1, 12)} for _ in range(ROWS)]
    marked = random.Random(4)  # of these rows the divergence is above zero, where it counts
    files: dict[str, list[dict[str, Any]]] = {
        "rows": [{**one, "output": _words(chance, 1, 12)} for one in prompts],
        "prompts": [{**one, "output": ""} for one in prompts],
        "pairs": [{**one, "chosen": _words(chance, 1, 9), "rejected": _words(chance, 1, 9)} for one in prompts],
        "documents": [{"text": _words(chance, 3, 20)} for _ in range(ROWS)],
        "marked": [{**one, "output": _words(marked, 1, 9), "kto_tag": bool(number % 3)} for number, one in enumerate(prompts)],
    }
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "rewards.py").write_text(REWARD, encoding="utf-8")


def _words(chance: random.Random, least: int, most: int) -> str:
    from tunewright.selftest.tiny import WORDS

    return " ".join(chance.choices(WORDS, k=chance.randint(least, most)))


def _widen(model: Path) -> None:
    """Small random weights say nearly nothing of a token: make them larger. Answers end sooner or later."""
    from safetensors.torch import load_file, save_file

    weights = load_file(model / "model.safetensors")
    weights = {name: weight * 8 if weight.dim() > 1 else weight for name, weight in weights.items()}
    weights["model.embed_tokens.weight"][END] *= 4
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})

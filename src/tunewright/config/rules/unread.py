"""Values that the chosen run never reads: a note for each one that the user wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tunewright.config.rules.rule import Broken, Case, Rule
from tunewright.config.run import RunConfig
from tunewright.config.table import table


@dataclass(frozen=True, slots=True)
class Unread:
    """The fields that are not read when `when` holds, and why."""

    fields: tuple[str, ...]
    why: str
    when: Callable[[RunConfig], bool]


_LORA = ("lora_rank", "lora_alpha", "lora_dropout", "lora_target", "lora_bias", "additional_target", "pissa_iter",
         "loraplus_lr_embedding")
_FREEZE = ("freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules")

UNREAD = (
    Unread(_LORA, "finetuning_type is not lora", lambda run: run.tuning.finetuning_type != "lora"),
    Unread(_FREEZE, "finetuning_type is not freeze", lambda run: run.tuning.finetuning_type != "freeze"),
    Unread(("pissa_iter",), "pissa_init is off", lambda run: not run.lora.pissa_init),
    Unread(("loraplus_lr_embedding",), "loraplus_lr_ratio is absent", lambda run: run.lora.loraplus_lr_ratio is None),
    Unread(("create_new_adapter", "adapter_folder"), "adapter_name_or_path is absent",
           lambda run: not run.model.adapter_name_or_path),
    Unread(("template", "default_system", "enable_thinking"), "stage is pt", lambda run: run.run.stage == "pt"),
    Unread(("split_special_tokens",), "conversations always split them", lambda run: run.run.stage != "pt"),
    Unread(("neat_packing",), "packing is off",
           lambda run: run.data.packing is False or (run.data.packing is None and run.run.stage != "pt")),
    Unread(("group_by_length", "padding_free"), "packing is on", lambda run: run.data.packing is True),
    Unread(("warmup_ratio",), "warmup_steps wins", lambda run: run.schedule.warmup_steps > 0),
    Unread(("warmup_ratio", "warmup_steps"), "the schedule `constant` has no warm-up",
           lambda run: run.schedule.lr_scheduler_type == "constant"),
    Unread(("num_train_epochs",), "max_steps wins", lambda run: run.batching.max_steps > 0),
    Unread(("adam_beta1", "adam_beta2", "adam_epsilon"), "optim is adafactor", lambda run: run.optimizer.optim == "adafactor"),
    Unread(("save_steps",), "save_strategy is not steps", lambda run: run.checkpoints.save_strategy != "steps"),
    Unread(("eval_steps",), "eval_strategy is not steps", lambda run: run.evaluation.eval_strategy != "steps"),
    Unread(("eval_delay",), "eval_strategy is no", lambda run: run.evaluation.eval_strategy == "no"),
    Unread(("logging_steps",), "logging_strategy is not steps", lambda run: run.logging.logging_strategy != "steps"),
    Unread(("early_stopping_threshold",), "early_stopping_patience is absent",
           lambda run: run.checkpoints.early_stopping_patience is None),
    Unread(("metric_for_best_model", "greater_is_better"), "neither load_best_model_at_end nor early stopping is on",
           lambda run: not run.checkpoints.load_best_model_at_end and run.checkpoints.early_stopping_patience is None),
    Unread(("use_reentrant_gc",), "gradient_checkpointing is off", lambda run: not run.precision.gradient_checkpointing),
    Unread(("logging_dir",), "report_to does not name tensorboard", lambda run: "tensorboard" not in run.logging.report_to),
)


def never_read(case: Case) -> list[Broken]:
    """The fields that were written with another value than their default, and that nothing reads."""
    found: dict[str, Broken] = {}
    for entry in UNREAD:
        if entry.when(case.run):
            for field in entry.fields:
                if field in case.given and field not in found and _differs(case.run, field):
                    found[field] = Broken(field, f"is not read by this run: {entry.why}")
    return list(found.values())


def _differs(run: RunConfig, field: str) -> bool:
    row = table()[field]
    return bool(vars(vars(run)[row.group])[field] != row.param.default)


RULES = (
    Rule("never-read", tuple(dict.fromkeys(field for entry in UNREAD for field in entry.fields)), never_read,
         purposes=("train",), is_error=False),
)

"""Rules on optimizers: what stands in for AdamW goes with what."""

from __future__ import annotations

from collections.abc import Mapping

from tunewright.config.literals import show
from tunewright.config.optimizer_names import ADAMW
from tunewright.config.rules.rule import Broken, Case, Rule

_SWITCHES = ("use_galore", "use_badam", "use_adam_mini")


def switched_on(case: Case) -> list[str]:
    """The switches, of those that put something in the place of AdamW, that are on."""
    optimizer = case.run.optimizer
    state: Mapping[str, bool] = {
        "use_galore": optimizer.use_galore, "use_badam": optimizer.use_badam, "use_adam_mini": optimizer.use_adam_mini}
    return [switch for switch in _SWITCHES if state[switch]]


def several_methods(case: Case) -> str | None:
    on = switched_on(case)
    return f"{' and '.join(on)} are on, but each takes the place of AdamW" if len(on) > 1 else None


def method_without_adamw(case: Case) -> str | None:
    on, optim = switched_on(case), case.run.optimizer.optim
    return f"is {optim}, but {on[0]} is a kind of AdamW" if on and optim not in ADAMW else None


def method_with_arguments(case: Case) -> str | None:
    on = switched_on(case)
    return f"holds {', '.join(case.run.optimizer.optim_args)}, but {on[0]} has parameters of its own" if (
        on and case.run.optimizer.optim_args) else None


def method_with_lora(case: Case) -> list[Broken]:
    if case.run.tuning.finetuning_type != "lora":
        return []
    return [Broken(switch, "is for the model's own weights, but finetuning_type is lora") for switch in switched_on(case)
            if switch != "use_adam_mini"]


def badam_interval_is_zero(case: Case) -> str | None:
    return "0 steps for a block train nothing" if case.run.optimizer.badam_switch_interval == 0 else None


def min_lr_above_peak(case: Case) -> str | None:
    least, peak = case.run.schedule.min_lr, case.run.optimizer.learning_rate
    wanted = case.run.schedule.lr_scheduler_type == "cosine" and least is not None and least > peak
    return f"{show(least)} is above learning_rate {show(peak)}: the rate would rise" if wanted else None


RULES = (
    Rule("several-optimizer-methods", _SWITCHES, several_methods, "keep one of them"),
    Rule("optimizer-method-without-adamw", ("optim", *_SWITCHES), method_without_adamw, "write adamw_torch"),
    Rule("optimizer-method-with-arguments", ("optim_args", *_SWITCHES), method_with_arguments, "remove optim_args"),
    Rule("optimizer-method-with-lora", (*_SWITCHES[:2], "finetuning_type"), method_with_lora, "set finetuning_type: full or freeze"),
    Rule("badam-interval-is-zero", ("badam_switch_interval",), badam_interval_is_zero,
         "write -1 to stay with one block, or an integer >= 1"),
    Rule("min-lr-above-peak", ("min_lr", "learning_rate", "lr_scheduler_type"), min_lr_above_peak, "use a smaller min_lr, or 0"),
)

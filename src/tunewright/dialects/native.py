"""Our own vocabulary: the field names, flat or below their groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from tunewright.dialects.dialect import Dialect, Restructured, Written


def restructure(values: Mapping[str, Written]) -> Restructured:
    """`gradient_checkpointing: auto` leaves the decision to the planner."""
    given = values.get("gradient_checkpointing")
    if given is None or given.value != "auto":
        return Restructured(values)
    return Restructured({**values, "gradient_checkpointing": replace(given, field="gradient_checkpointing_auto", value=True)})


NATIVE: Final = Dialect("native", restructure, convert={
    "optim_args": "mapping", "lr_scheduler_kwargs": "mapping", "report_to": "trackers", "resume_from_checkpoint": "resume_path",
    "template": "null_is_auto", "profile_ranks": "rank_numbers", "debug": "comma_list", "disable_tqdm": "null_is_false",
    "dataset": "comma_list", "eval_dataset": "comma_list", "adapter_name_or_path": "comma_list", "additional_target": "comma_list",
    "freeze_extra_modules": "comma_list",
})
"""Our field names; where LLaMA-Factory and Hugging Face have a name, it is ours too. Some fields accept more forms than their own, as
the vocabularies they come from do."""

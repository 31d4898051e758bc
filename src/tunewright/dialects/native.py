"""Our own vocabulary: the field names, flat or below their groups."""

from __future__ import annotations

from typing import Final

from tunewright.dialects.dialect import Dialect

NATIVE: Final = Dialect("native", convert={
    "optim_args": "mapping", "lr_scheduler_kwargs": "mapping", "report_to": "trackers", "resume_from_checkpoint": "resume_path",
    "template": "null_is_auto", "profile_ranks": "rank_numbers", "debug": "comma_list", "disable_tqdm": "null_is_false",
    "dataset": "comma_list", "eval_dataset": "comma_list", "adapter_name_or_path": "comma_list", "additional_target": "comma_list",
    "freeze_extra_modules": "comma_list",
})
"""Our field names; where LLaMA-Factory and Hugging Face have a name, it is ours too. Some fields accept more forms than their own, as
the vocabularies they come from do."""

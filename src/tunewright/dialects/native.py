"""Our own vocabulary: the field names, flat or below their groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunewright.config.param import Alias
from tunewright.config.table import Row, names_in, table
from tunewright.dialects.dialect import Evidence, Refusal, Restructured, Written
from tunewright.dialects.pending import load_pending

CONVERT: Mapping[str, str] = {
    "optim_args": "mapping", "lr_scheduler_kwargs": "mapping", "report_to": "trackers", "resume_from_checkpoint": "resume_path",
    "template": "null_is_auto", "disable_tqdm": "null_is_false", "dataset": "comma_list", "eval_dataset": "comma_list",
    "adapter_name_or_path": "comma_list", "additional_target": "comma_list", "freeze_extra_modules": "comma_list",
}
"""Fields that accept more forms than their own, as the vocabularies they come from do."""


@dataclass(frozen=True, slots=True)
class Native:
    """Our field names; where LLaMA-Factory and Hugging Face have a name, it is ours too."""

    name: str = "native"

    def names(self) -> Mapping[str, tuple[Row, Alias]]:
        return {field: (row, Alias(field, convert=CONVERT.get(field))) for field, row in table().items()}

    def recognise(self, written: list[Written]) -> Evidence:
        theirs = names_in("llamafactory")
        return Evidence(strong=tuple(
            one for one in written if one.group is not None or (one.name in table() and one.name not in theirs)))

    def restructure(self, values: Mapping[str, Written]) -> Restructured:
        return Restructured(values)

    def refusal(self, written: Written) -> Refusal | None:
        return load_pending("llamafactory").refusal(written)

    def is_pending(self, name: str) -> bool:
        return load_pending("llamafactory").knows(name)

    def value_refusal(self, row: Row, value: Any) -> Refusal | None:
        return None

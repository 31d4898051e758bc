"""Rules on uploads."""

from __future__ import annotations

import re
from typing import Final

from tunewright.config.rules.rule import Broken, Case, Rule

_PART: Final = r"(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[\w.-]{0,94}[\w])?"
_REPOSITORY: Final = re.compile(f"(?:{_PART}/)?{_PART}", re.ASCII)


def no_repository(case: Case) -> list[Broken]:
    named = {"hub_model_id": (case.run.hub.hub_model_id or "x").removesuffix("/"),
             "export_hub_model_id": case.run.export.export_hub_model_id or "x"}
    return [Broken(field, f"'{name}' cannot be the name of a repository") for field, name in named.items()
            if not _REPOSITORY.fullmatch(name)]


def no_checkpoints_to_upload(case: Case) -> str | None:
    hub, strategy = case.run.hub, case.run.checkpoints.save_strategy
    wanted = hub.push_to_hub and hub.hub_strategy in ("checkpoint", "all_checkpoints") and strategy == "no"
    return f"{hub.hub_strategy} uploads checkpoints, but save_strategy is no" if wanted else None


RULES = (
    Rule("no-repository", ("hub_model_id", "export_hub_model_id"), no_repository,
         "write owner/name with letters, digits, dots, dashes and underscores"),
    Rule("no-checkpoints-to-upload", ("hub_strategy", "save_strategy"), no_checkpoints_to_upload,
         "set save_strategy: steps, or hub_strategy: end", purposes=("train",)),
)

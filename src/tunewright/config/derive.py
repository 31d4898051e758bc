"""Values that follow from other values: one small function each, in a literal table. Standard library only."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.config.run import RunConfig
from tunewright.config.table import replace, values


@dataclass(frozen=True, slots=True)
class Derivation:
    """How `field` is filled in when it was left open, and the reason in words."""

    field: str
    reason: str
    value: Callable[[RunConfig], Any]


def _lora_alpha(run: RunConfig) -> float:
    return 2.0 * run.lora.lora_rank


def packs(run: RunConfig) -> bool:
    """Whether rows share sequences, also of a run whose open values are not filled in."""
    return run.run.stage == "pt" if run.data.packing is None else run.data.packing


def _eval_steps(run: RunConfig) -> float | None:
    return run.logging.logging_steps if run.evaluation.eval_strategy == "steps" else None


def _logging_dir(run: RunConfig) -> str | None:
    return str(Path(run.run.output_dir) / "runs") if run.run.output_dir else None


def data_seed(run: RunConfig) -> int:
    """What the order of the data is drawn from, also of a run whose open values are not filled in."""
    return run.run.seed if run.run.data_seed is None else run.run.data_seed


def _metric(run: RunConfig) -> str | None:
    return "eval_loss" if run.checkpoints.load_best_model_at_end or run.checkpoints.early_stopping_patience else None


def _greater_is_better(run: RunConfig) -> bool | None:
    metric = run.checkpoints.metric_for_best_model
    return None if metric is None else not metric.endswith("loss")


DERIVATIONS = (
    Derivation("lora_alpha", "twice lora_rank", _lora_alpha),
    Derivation("packing", "on in pre-training only", packs),
    Derivation("eval_steps", "as often as logging_steps", _eval_steps),
    Derivation("logging_dir", "`runs` in output_dir", _logging_dir),
    Derivation("data_seed", "as seed", data_seed),
    Derivation("metric_for_best_model", "the evaluation loss decides", _metric),
    Derivation("greater_is_better", "from the metric's name", _greater_is_better),
)


def derived(run: RunConfig) -> tuple[RunConfig, dict[str, str]]:
    """The run with open values filled in, and for each filled field the reason. Doing it twice changes nothing."""
    reasons: dict[str, str] = {}
    run, reasons = _without_unpinned_code(*_prefix_metric(run, reasons))
    for derivation in DERIVATIONS:
        if values(run)[derivation.field] is None:
            value = derivation.value(run)
            if value is not None:
                run = replace(run, {derivation.field: value})
                reasons[derivation.field] = derivation.reason
    return run, reasons


def _prefix_metric(run: RunConfig, reasons: dict[str, str]) -> tuple[RunConfig, dict[str, str]]:
    metric = run.checkpoints.metric_for_best_model
    if metric is None or metric.startswith("eval_"):
        return run, reasons
    return replace(run, {"metric_for_best_model": f"eval_{metric}"}), {
        **reasons, "metric_for_best_model": "metrics of an evaluation begin with eval_"}


_COMMIT = re.compile(r"[0-9a-f]{40}")


def code_may_change(run: RunConfig) -> bool:
    """Whether the code that `trust_remote_code` trusts is that of a hub model at no commit in particular."""
    model = run.model
    name = model.model_name_or_path or "demo"
    is_hub = name != "demo" and not os.path.exists(os.path.expanduser(name))
    return model.trust_remote_code and is_hub and _COMMIT.fullmatch(model.model_revision) is None


def _without_unpinned_code(run: RunConfig, reasons: dict[str, str]) -> tuple[RunConfig, dict[str, str]]:
    """Peers' sample files trust remote code by habit, for models that need none."""
    if not code_may_change(run):
        return run, reasons
    return replace(run, {"trust_remote_code": False}), {
        **reasons, "trust_remote_code": "only code at a commit is run, and model_revision names none"}

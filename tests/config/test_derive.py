"""Derived values: each rule of the declarations' `absent means ...`, worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunewright.config.derive import derived
from tunewright.config.run import RunConfig
from tunewright.config.table import build, values

CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"lora_alpha": 16.0, "packing": False, "data_seed": 42}),
    ({"lora_rank": 3}, {"lora_alpha": 6.0, "packing": False, "data_seed": 42}),
    ({"stage": "pt", "data_seed": 7, "lora_alpha": 1.0}, {"packing": True}),
    ({"eval_strategy": "steps", "logging_steps": 25.0, "packing": True}, {"lora_alpha": 16.0, "data_seed": 42, "eval_steps": 25.0}),
    ({"output_dir": "out", "seed": 1}, {"lora_alpha": 16.0, "packing": False, "data_seed": 1, "logging_dir": "out/runs"}),
    ({"load_best_model_at_end": True}, {"lora_alpha": 16.0, "packing": False, "data_seed": 42, "metric_for_best_model": "eval_loss",
                                        "greater_is_better": False}),
    ({"metric_for_best_model": "rouge-l"}, {"lora_alpha": 16.0, "packing": False, "data_seed": 42,
                                            "metric_for_best_model": "eval_rouge-l", "greater_is_better": True}),
    ({"metric_for_best_model": "eval_loss", "greater_is_better": True}, {"lora_alpha": 16.0, "packing": False, "data_seed": 42}),
    ({"trust_remote_code": True, "model_name_or_path": "org/name"}, {"lora_alpha": 16.0, "packing": False, "data_seed": 42,
                                                                     "trust_remote_code": False}),
    ({"trust_remote_code": True, "model_name_or_path": "org/name", "model_revision": "a" * 40},
     {"lora_alpha": 16.0, "packing": False, "data_seed": 42}),
    ({"trust_remote_code": True, "model_name_or_path": str(Path(__file__).parent)},
     {"lora_alpha": 16.0, "packing": False, "data_seed": 42}),
]


@pytest.mark.parametrize(("given", "filled_in"), CASES)
def test_what_is_filled_in(given: dict[str, Any], filled_in: dict[str, Any]) -> None:
    """Exactly these fields change, each with a reason; doing it again changes nothing."""
    run = build(given)
    resolved, reasons = derived(run)
    before, after = values(run), values(resolved)
    assert {field: value for field, value in after.items() if value != before[field]} == filled_in
    assert set(reasons) == set(filled_in)
    assert derived(resolved) == (resolved, {})
    assert run == build(given), "the run itself is not changed"


def test_demo_stays_a_name() -> None:
    """`demo` is resolved where a model is opened, not here."""
    assert derived(build({"model_name_or_path": "demo"}))[0].model.model_name_or_path == "demo"
    assert RunConfig() == build({})

"""The vocabulary of the command-line reference (document 001)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tunewright.dialects.dialect import Dialect, Restructured, Written


def adjust(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The document gives early stopping a patience of 3 and no switch; the trainer behind it stops early only where evaluations
    find a best model (semantics, section 3)."""
    finds_best = given.get("eval_strategy", "no") != "no" and given.get("load_best_model_at_end", False)
    return {} if finds_best else {"early_stopping_patience": None}


def restructure(values: Mapping[str, Written]) -> Restructured:
    """A patience that is written at its documented default asks for nothing where nothing is evaluated."""
    patience, strategy = values.get("early_stopping_patience"), values.get("evaluation_strategy")
    if patience is None or str(patience.value) != "3" or (strategy is not None and strategy.value != "no"):
        return Restructured(values)
    rest = {name: one for name, one in values.items() if name != "early_stopping_patience"}
    return Restructured(rest, (f"{patience.where}: {patience.key}: nothing stops early, because evaluation_strategy is no",))


CLI_REFERENCE: Final = Dialect("cli_reference", restructure, adjust)

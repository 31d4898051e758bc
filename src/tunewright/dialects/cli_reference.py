"""The vocabulary of the command-line reference (document 001)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tunewright.dialects.dialect import Adjustment, Dialect, Restructured, Written
from tunewright.dialects.paired import checkpointing, number_of, without

_DEFAULT_RATIO: Final = 0.03


def adjust(given: Mapping[str, Any]) -> dict[str, Adjustment]:
    """Defaults that depend on what was written."""
    return {**_patience(given), **_target(given), **_held_back(given)}


def _patience(given: Mapping[str, Any]) -> dict[str, Adjustment]:
    """The document gives early stopping a patience of 3 and no switch; the trainer behind it stops early only where evaluations
    find a best model (semantics, section 3)."""
    if given.get("eval_strategy", "no") != "no" and given.get("load_best_model_at_end", False):
        return {}
    return {"early_stopping_patience": Adjustment(None, "nothing stops early unless evaluations find a best model")}


def _target(given: Mapping[str, Any]) -> dict[str, Adjustment]:
    """Adapters need a place; the document's default names none, its examples `all`."""
    if given.get("finetuning_type") != "lora" or given.get("lora_target"):
        return {}
    why = "lora_target is none, and LoRA needs targets"
    return {"lora_target": Adjustment(("all",), why, f"{why}: every linear layer but the head gets an adapter, as with `all`")}


def _held_back(given: Mapping[str, Any]) -> dict[str, Adjustment]:
    """A tenth of the rows is held back by default, and by default nothing is evaluated (semantics, section 2)."""
    if "val_size" in given or given.get("eval_strategy", "no") != "no" or not given.get("dataset"):
        return {}
    note = "val_size is 0.1 by default in cli_reference: a tenth of the rows is held back, though evaluation_strategy is no; write 0 to " \
           "train on all"
    return {"val_size": Adjustment(0.1, "the default of cli_reference", note)}


def restructure(values: Mapping[str, Written]) -> Restructured:
    """What the document's names mean together."""
    notes: tuple[str, ...] = ()
    for step in (_early_stopping, _warmup, _attention, _no_targets, _template_file, lambda found: checkpointing(found, "LLaMA-Factory")):
        found = step(values)
        values, notes = found.values, notes + found.notes
    return Restructured(values, notes)


def _early_stopping(values: Mapping[str, Written]) -> Restructured:
    """A patience that is written at its documented default asks for nothing where nothing is evaluated."""
    patience, strategy = values.get("early_stopping_patience"), values.get("evaluation_strategy") or values.get("eval_strategy")
    if patience is None or str(patience.value) != "3" or (strategy is not None and strategy.value not in ("no", False)):
        return Restructured(values)
    note = f"{patience.where}: {patience.key}: nothing stops early, because evaluation_strategy is no"
    return Restructured(without(values, "early_stopping_patience"), (note,))


def _warmup(values: Mapping[str, Written]) -> Restructured:
    """`warmup_ratio`, 0.03 by default, wins over `warmup_steps`: those count only where the ratio is 0."""
    steps, ratio = values.get("warmup_steps"), values.get("warmup_ratio")
    count = number_of(steps.value) if steps is not None else None
    if steps is None or count is None or count < 0 or count % 1 or (ratio is not None and number_of(ratio.value) == 0):
        return Restructured(values)
    rest = without(values, "warmup_steps")
    if count == 0:
        return Restructured(rest)
    winner = f"the default warmup_ratio of {_DEFAULT_RATIO}" if ratio is None else f"{ratio.key} {ratio.value} at {ratio.where}"
    note = f"{steps.where}: {steps.key}: {winner} wins over steps in cli_reference; write warmup_ratio 0 for the steps to count"
    return Restructured(rest, (note,))


def _attention(values: Mapping[str, Written]) -> Restructured:
    """`flash_attn: auto` leaves the choice to `attn_implementation`; any other value wins over `attn_implementation: eager`, which
    is its documented default. What else disagrees is a contradiction."""
    flash, named = values.get("flash_attn"), values.get("attn_implementation")
    if flash is None or named is None:
        return Restructured(values)
    if flash.value == "auto":
        return Restructured(without(values, "flash_attn"))
    if named.value != "eager" or flash.value == "disabled":
        return Restructured(values)
    note = f"{named.where}: {named.key}: {flash.key} {flash.value} at {flash.where} wins over eager, the default"
    return Restructured(without(values, "attn_implementation"), (note,))


def _no_targets(values: Mapping[str, Written]) -> Restructured:
    """None, the documented default, is as if `lora_target` was left out."""
    target = values.get("lora_target")
    is_none = target is not None and (target.value in (None, "", []) or str(target.value).strip().lower() in ("none", "null"))
    return Restructured(without(values, "lora_target") if is_none else values)


def _template_file(values: Mapping[str, Written]) -> Restructured:
    """`template_file` goes with `template: custom`, or with its default; another template beside it is a contradiction."""
    named, file = values.get("template"), values.get("template_file")
    goes = named is not None and file is not None and file.value is not None and named.value in ("custom", "auto")
    return Restructured(without(values, "template") if goes else values)


CLI_REFERENCE: Final = Dialect("cli_reference", restructure, adjust)

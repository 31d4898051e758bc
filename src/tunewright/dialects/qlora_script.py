"""The vocabulary of the QLoRA training script (document 000)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tunewright.dialects.dialect import Adjustment, Dialect, Restructured, Written
from tunewright.dialects.paired import is_truth, without

_NO_DATA: Final = "there is no evaluation data"


def adjust(given: Mapping[str, Any]) -> dict[str, Adjustment]:
    """Defaults that depend on what was written."""
    return {**_evaluation(given), **_bits(given)}


def _evaluation(given: Mapping[str, Any]) -> dict[str, Adjustment]:
    """The document evaluates each epoch, but has no name for evaluation data: without any, given in our names, nothing is evaluated."""
    if given.get("eval_dataset") or given.get("val_size"):
        return {}
    return {"eval_strategy": Adjustment("no", _NO_DATA), "do_eval": Adjustment(False, _NO_DATA)}


def _bits(given: Mapping[str, Any]) -> dict[str, Adjustment]:
    """The document quantises by default; what is quantised cannot be trained in full. Where `bits` is written it is refused by a rule."""
    if given.get("finetuning_type", "lora") == "lora" or "quantization_bit" in given:
        return {}
    note = "bits is 4 by default in qlora_script, but quantised weights cannot be trained: the base model is not quantised"
    return {"quantization_bit": Adjustment(None, "quantised weights cannot be trained", note)}


def restructure(values: Mapping[str, Written]) -> Restructured:
    """Evaluations that are written as the document has them, without the data that it has no name for, are left out."""
    if any(name in values and values[name].value not in (None, "", 0, "0") for name in ("eval_dataset", "val_size")):
        return Restructured(values)
    strategy = values.get("evaluation_strategy")
    in_vain = [strategy] if strategy is not None and strategy.value in ("steps", "epoch") else []
    in_vain += [values["do_eval"]] if is_truth(values.get("do_eval"), True) else []
    notes = []
    for one in in_vain:
        values = without(values, one.name)
        notes.append(f"{one.where}: {one.key}: {_NO_DATA}, for which qlora_script has no name; nothing is evaluated unless val_size or "
                     "eval_dataset is given on the command line")
    return Restructured(values, tuple(notes))


QLORA_SCRIPT: Final = Dialect("qlora_script", restructure, adjust)

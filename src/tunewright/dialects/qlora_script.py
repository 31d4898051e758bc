"""The vocabulary of the QLoRA training script (document 000)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tunewright.dialects.dialect import Dialect


def adjust(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The document evaluates each epoch, but has no name for evaluation data: without any, given in our names, nothing is evaluated."""
    return {} if given.get("eval_dataset") or given.get("val_size") else {"eval_strategy": "no", "do_eval": False}


QLORA_SCRIPT: Final = Dialect("qlora_script", adjust=adjust)

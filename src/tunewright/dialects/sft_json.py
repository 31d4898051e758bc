"""The vocabulary of the SFT configuration in JSON (document 002)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from tunewright.dialects.dialect import Dialect, Restructured, Written

_BITS: Final = 4


def restructure(values: Mapping[str, Written]) -> Restructured:
    """`train_mode: qlora` is LoRA over a base model in 4 bits; the document has no name for the bits alone."""
    mode = values.get("train_mode")
    if mode is None or str(mode.value).strip().lower() != "qlora":
        return Restructured(values)
    return Restructured({**values, "bits of train_mode": replace(mode, field="quantization_bit", value=_BITS)})


SFT_JSON: Final = Dialect("sft_json", restructure)

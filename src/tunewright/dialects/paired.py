"""Names of one vocabulary that speak for one another, in the vocabularies that took them from LLaMA-Factory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tunewright.dialects.dialect import Restructured, Written


def is_truth(written: Written | None, truth: bool) -> bool:
    """Whether this truth is written, as a truth or as its text."""
    return written is not None and str(written.value).strip().lower() == str(truth).lower()


def number_of(value: Any) -> float | None:
    """The number that is written, in any form of one; None for what is none, which is reported elsewhere."""
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def without(values: Mapping[str, Written], name: str) -> dict[str, Written]:
    """The others."""
    return {other: one for other, one in values.items() if other != name}


def checkpointing(values: Mapping[str, Written], whose: str) -> Restructured:
    """Activations are recomputed unless `disable_gradient_checkpointing`; `gradient_checkpointing: false`, its documented default,
    does not turn that off in LLaMA-Factory, so it does not here."""
    given = values.get("gradient_checkpointing")
    if given is None or not is_truth(given, False):
        return Restructured(values)
    rest = without(values, "gradient_checkpointing")
    if is_truth(values.get("disable_gradient_checkpointing"), True):
        return Restructured(rest)
    note = (f"{given.where}: {given.key}: false does not turn gradient checkpointing off in {whose}, nor here; "
            "write disable_gradient_checkpointing: true")
    return Restructured(rest, (note,))


def neat_packing(values: Mapping[str, Written], whose: str) -> Restructured:
    """`neat_packing: true` turns packing on, and overrules `packing: false`."""
    given, packing = values.get("neat_packing"), values.get("packing")
    if given is None or not is_truth(given, True) or is_truth(packing, True):
        return Restructured(values)
    note = f"{given.where}: {given.key}: true turns packing on, as in {whose}"
    told = (note,) if is_truth(packing, False) else ()
    return Restructured({**values, "packing": replace(given, name="packing", value=True)}, told)

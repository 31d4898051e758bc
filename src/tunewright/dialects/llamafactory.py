"""The vocabulary of LLaMA-Factory (v0.9.1 with transformers 4.44): its names, defaults and effective meanings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from tunewright.config.literals import show
from tunewright.config.table import table
from tunewright.dialects.dialect import Dialect, Restructured, Written


def restructure(values: Mapping[str, Written]) -> Restructured:
    """What LLaMA-Factory does beyond its document."""
    values, checkpointing = _checkpointing(values)
    values, timeout = _timeout(values)
    values, packing = _neat_packing(values)
    return Restructured(values, checkpointing + timeout + packing)


def _is(written: Written | None, truth: bool) -> bool:
    return written is not None and str(written.value).strip().lower() == str(truth).lower()


def _checkpointing(values: Mapping[str, Written]) -> tuple[Mapping[str, Written], tuple[str, ...]]:
    """LLaMA-Factory checkpoints activations unless `disable_gradient_checkpointing`; `gradient_checkpointing: false`, its
    documented default, does not turn it off there, so it does not here."""
    given = values.get("gradient_checkpointing")
    if given is None or not _is(given, False):
        return values, ()
    rest = {name: one for name, one in values.items() if name != "gradient_checkpointing"}
    if _is(values.get("disable_gradient_checkpointing"), True):
        return rest, ()
    note = (f"{given.where}: {given.key}: false does not turn gradient checkpointing off in LLaMA-Factory, nor here; "
            "write disable_gradient_checkpointing: true")
    return rest, (note,)


def _timeout(values: Mapping[str, Written]) -> tuple[Mapping[str, Written], tuple[str, ...]]:
    """LLaMA-Factory's examples wait 180000000 seconds, 5.7 years, for a lost rank; a bounded wait is enough."""
    given, longest = values.get("ddp_timeout"), table()["ddp_timeout"].param.maximum
    if given is None or longest is None or not str(given.value).isdigit() or int(given.value) <= longest:
        return values, ()
    note = f"{given.where}: {given.key}: {given.value} seconds is more than a lost rank is waited for; {show(longest)} is used"
    return {**values, "ddp_timeout": replace(given, value=int(longest))}, (note,)


def _neat_packing(values: Mapping[str, Written]) -> tuple[Mapping[str, Written], tuple[str, ...]]:
    """`neat_packing: true` turns packing on, as in LLaMA-Factory, which overrules `packing: false`."""
    given, packing = values.get("neat_packing"), values.get("packing")
    if given is None or not _is(given, True) or _is(packing, True):
        return values, ()
    note = f"{given.where}: {given.key}: true turns packing on, as in LLaMA-Factory"
    return {**values, "packing": replace(given, name="packing", value=True)}, (note,) if _is(packing, False) else ()


LLAMAFACTORY: Final = Dialect("llamafactory", restructure, usual=("do_train",))
"""LLaMA-Factory's names and defaults. Our own files have no use for do_train, but every training file of LLaMA-Factory has it."""

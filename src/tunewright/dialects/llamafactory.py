"""The vocabulary of LLaMA-Factory (v0.9.1 with transformers 4.44): its names, defaults and effective meanings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tunewright.config.literals import show
from tunewright.config.param import Alias
from tunewright.config.table import Row, names_in, table
from tunewright.dialects.dialect import Evidence, Refusal, Restructured, Written
from tunewright.dialects.pending import load_pending

_WEAK = ("do_train",)
"""Names that our own files have no use for, but that every training file of LLaMA-Factory has."""


@dataclass(frozen=True, slots=True)
class LlamaFactory:
    """LLaMA-Factory's names and defaults."""

    name: str = "llamafactory"

    def names(self) -> Mapping[str, tuple[Row, Alias]]:
        return names_in("llamafactory")

    def recognise(self, written: list[Written]) -> Evidence:
        own = [one for one in written if one.group is None and one.name in self.names() and one.name not in table()]
        weak = [one for one in written if one.name in _WEAK or self.is_pending(one.name)]
        return Evidence(tuple(own), tuple(weak))

    def restructure(self, values: Mapping[str, Written]) -> Restructured:
        values, checkpointing = _checkpointing(values)
        values, timeout = _timeout(values)
        values, packing = _neat_packing(values)
        return Restructured(values, checkpointing + timeout + packing)

    def refusal(self, written: Written) -> Refusal | None:
        return load_pending("llamafactory").refusal(written)

    def is_pending(self, name: str) -> bool:
        return load_pending("llamafactory").knows(name)

    def value_refusal(self, row: Row, value: Any) -> Refusal | None:
        pending = load_pending("llamafactory").values.get(row.field, ())
        given = value if isinstance(value, list | tuple) else str(value).split(",")
        unbuilt = [one for one in given if one in pending]
        if not unbuilt:
            return None
        return Refusal(f"'{unbuilt[0]}' is not built yet", f"choose one of {', '.join(show(one) for one in row.param.choices or ())}")


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

"""The vocabulary of LLaMA-Factory (v0.9.1 with transformers 4.44): its names, defaults and effective meanings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from tunewright.config.literals import show
from tunewright.config.table import table
from tunewright.dialects.dialect import Dialect, Restructured, Written
from tunewright.dialects.paired import checkpointing, neat_packing, number_of


def restructure(values: Mapping[str, Written]) -> Restructured:
    """What LLaMA-Factory does beyond its document."""
    checkpointed = checkpointing(values, "LLaMA-Factory")
    timed = _timeout(checkpointed.values)
    packed = neat_packing(timed.values, "LLaMA-Factory")
    return Restructured(_repository(packed.values), checkpointed.notes + timed.notes + packed.notes)


def _timeout(values: Mapping[str, Written]) -> Restructured:
    """LLaMA-Factory's examples wait 180000000 seconds, 5.7 years, for a lost rank; a bounded wait is enough."""
    given, longest = values.get("ddp_timeout"), table()["ddp_timeout"].param.maximum
    seconds = number_of(given.value) if given is not None else None
    if given is None or longest is None or seconds is None or seconds <= longest:
        return Restructured(values)
    note = f"{given.where}: {given.key}: {given.value} seconds is more than a lost rank is waited for; {show(longest)} is used"
    return Restructured({**values, "ddp_timeout": replace(given, value=int(longest))}, (note,))


def _repository(values: Mapping[str, Written]) -> Mapping[str, Written]:
    """`push_to_hub_organization` is the owner of the repository that hub_model_id, or else output_dir, names."""
    owner, output = values.get("push_to_hub_organization"), values.get("output_dir")
    named = next((values[name] for name in ("hub_model_id", "push_to_hub_model_id") if name in values and values[name].value), None)
    if owner is None or not owner.value or (named is None and (output is None or not output.value)):
        return values
    name = str(named.value) if named is not None else Path(str(output.value)).name if output is not None else ""
    if "/" in name:
        return values
    rest = {key: one for key, one in values.items() if key not in ("push_to_hub_organization", "push_to_hub_model_id")}
    return {**rest, "hub_model_id": replace(owner, name="hub_model_id", value=f"{owner.value}/{name}")}


LLAMAFACTORY: Final = Dialect("llamafactory", restructure, usual=("do_train",), usual_without={"do_predict": "dataset"})
"""LLaMA-Factory's names and defaults. Our own files have no use for do_train, but every training file of LLaMA-Factory has it; those
that only predict have do_predict, which here goes with training, and no data to train on."""

"""Stretched positions that an adapter was trained on. No weight of an adapter says so, and without them its base is another model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tunewright.adapters.directory import adapter_directories
from tunewright.config.model import ModelConfig
from tunewright.config.table import table
from tunewright.errors import refuse, require
from tunewright.models.directory import read_json_object

if TYPE_CHECKING:
    from transformers import PretrainedConfig

POSITIONS_FILE: Final = "adapter_positions.json"
"""`{"rope_scaling": method, "cutoff_len": tokens}`: what the run that made the adapter said."""

_LONGEST: Final = 2**31


class Positions(NamedTuple):
    """The method, and the longest sequence, which decides on the factor."""

    method: str
    length_tokens: int


def with_positions(model: ModelConfig, length_tokens: int) -> tuple[ModelConfig, int]:
    """`model` and `length_tokens`, replaced by what its adapters were trained on unless `model` says how to stretch itself.

    Raises `InputError` if its adapters disagree.
    """
    if model.rope_scaling is not None or not model.adapter_name_or_path:
        return model, length_tokens
    said = {directory: read_positions(directory) for directory in adapter_directories(model)}
    found = {positions for positions in said.values() if positions is not None}
    if not found:
        return model, length_tokens
    require(len(found) == 1, f"adapter_name_or_path: {' and '.join(map(str, said))} were trained on positions stretched in different ways",
            mend="set rope_scaling and cutoff_len")
    (only,) = found
    return replace(model, rope_scaling=only.method), only.length_tokens


def applied(config: PretrainedConfig, model: ModelConfig, length_tokens: int) -> Positions | None:
    """What to remember of a model that was opened as `model`; None where its positions are those of its files."""
    method = model.rope_scaling
    rotary = getattr(config.get_text_config(), "rope_parameters", None) or {}
    return Positions(method, length_tokens) if method is not None and rotary.get("rope_type") == method else None


def write_positions(directory: Path, positions: Positions | None) -> None:
    """Record them in an adapter directory; no file where there is nothing to say."""
    file = directory / POSITIONS_FILE
    if positions is None:
        file.unlink(missing_ok=True)
        return
    said = {"rope_scaling": positions.method, "cutoff_len": positions.length_tokens}
    file.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def read_positions(directory: Path) -> Positions | None:
    """What `write_positions` wrote. Raises `InputError` for values that it does not write: the directory may be a stranger's."""
    file = directory / POSITIONS_FILE
    if not file.is_file():
        return None
    said = read_json_object(file)
    method, length = said.get("rope_scaling"), said.get("cutoff_len")
    known = table()["rope_scaling"].param.choices or ()
    if method not in known or not isinstance(length, int) or isinstance(length, bool) or not 0 < length <= _LONGEST:
        refuse(f"rope_scaling is {method!r} and cutoff_len {length!r}", where=str(file), mend="fetch the adapter again")
    return Positions(str(method), length)

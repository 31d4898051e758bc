"""Rows with one answer each: a reward model scores those as well as the pairs that it is trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tunewright.config.data import evaluation_sets
from tunewright.data.formats.detect import detect
from tunewright.data.quirks import chosen
from tunewright.data.sources import first_rows, locate, named

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tunewright.config.data import DataConfig
    from tunewright.config.run import RunConfig


def read_for_prediction(run: RunConfig) -> RunConfig:
    """The run as which evaluation rows are read in prediction: that of a reward model reads conversations like supervised fine-tuning if
    every evaluation set holds such, by its declaration or its first row. Of a set that lies elsewhere only the declaration is known."""
    specs = [spec for several in evaluation_sets(run.data).values() for spec in several]
    if run.run.stage != "rm" or not specs or not all(_holds_conversations(spec, run.data) for spec in specs):
        return run
    return replace(run, run=replace(run.run, stage="sft"), data=replace(run.data, dataset=()))


def _holds_conversations(spec: str | Mapping[str, Any], data: DataConfig) -> bool:
    source = named(locate(spec, data.dataset_dir, key="eval_dataset", quirks=chosen(data.data_compat)), data.columns())
    layout = source.layout
    if layout is None and source.place is None:
        first = next(iter(first_rows(source.files[0])), None)
        layout = None if first is None else detect(first.values)
    return layout is not None and layout.kind == "conversation"

"""The table of parameters: what must hold of every declaration."""

from __future__ import annotations

import dataclasses

import pytest

from tunewright.config import coerce, table
from tunewright.config.param import DIALECTS
from tunewright.config.run import RunConfig

ROWS = list(table.table().values())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.field)
def test_default_is_a_value_of_the_declared_type_and_range(row: table.Row) -> None:
    """A default must itself be allowed: it comes back unchanged."""
    assert coerce.coerce(row, row.param.default) == row.param.default


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.field)
def test_default_of_llamafactory_is_allowed(row: table.Row) -> None:
    """The vocabulary that can be read has no default that we refuse."""
    default = row.default_in("llamafactory")
    assert coerce.coerce(row, default) == default


def test_table_holds_every_field_once_in_order() -> None:
    """The flat view is the tree; field names are unique."""
    fields = [(group.name, field.name) for group in dataclasses.fields(RunConfig)
              for field in dataclasses.fields(table.group_types()[group.name])]
    assert [(row.group, row.field) for row in ROWS] == fields
    assert len({field for _, field in fields}) == len(fields)
    assert table.table()["lora_rank"].path == "lora.lora_rank"


def test_values_build_and_replace_are_inverse() -> None:
    """Flat values make the same tree; a change touches one field."""
    config = RunConfig()
    assert table.build(table.values(config)) == config == table.build({})
    changed = table.replace(config, {"lora_rank": 3, "seed": 1})
    different = {field for field, value in table.values(changed).items() if value != table.values(config)[field]}
    assert different == {"lora_rank", "seed"} and (changed.lora.lora_rank, changed.run.seed) == (3, 1)


def test_lookup_by_the_names_of_other_vocabularies() -> None:
    """One parameter, six names; whose they are."""
    found = {dialect: table.names_in(dialect)[name][0].field for dialect, name in (
        ("native", "learning_rate"), ("llamafactory", "learning_rate"), ("mindspeed_fsdp2", "lr"))}
    assert set(found.values()) == {"learning_rate"}
    assert [(dialect, row.field) for dialect, row in table.owners("lora_r")] == [("qlora_script", "lora_rank")]
    assert table.owners("nothing") == []
    assert all(table.names_in(dialect) for dialect in DIALECTS)


@pytest.mark.parametrize(("typo", "best"), [
    ("learnig_rate", "learning_rate"), ("Lora-Rank", "lora_rank"), ("cutof_len", "cutoff_len"), ("xyzzy", None)])
def test_nearest(typo: str, best: str | None) -> None:
    """The closest name first; none if nothing is close."""
    assert next(iter(table.nearest(typo, table.table())), None) == best


def test_defaults_differ_only_where_the_vocabulary_says_so() -> None:
    """Hand-picked: ours, LLaMA-Factory's, and a script's."""
    assert [table.defaults(dialect)["learning_rate"] for dialect in ("native", "llamafactory", "mindspeed_fsdp2")] == [1e-4, 5e-5, 1e-5]
    assert [table.defaults(dialect)["gradient_checkpointing"] for dialect in ("native", "llamafactory")] == [False, True]

"""What we declare of the five vocabularies against the ledger of their documents, which is the oracle here."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tunewright.config.coerce import coerce
from tunewright.config.param import DIALECTS
from tunewright.config.table import names_in, table
from tunewright.dialects import coverage, reference
from tunewright.dialects.converters import ABSENT, CONVERTERS
from tunewright.dialects.known import READABLE
from tunewright.dialects.pending import load_pending
from tunewright.dialects.read import read_config
from tunewright.errors import ConfigError

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

LATER_NAMES = {("llamafactory", name) for name in ("trust_remote_code", "enable_thinking", "use_reentrant_gc")}
"""Names that LLaMA-Factory has today, and that its document of the ledger's release does not have yet."""

OUR_READING = {
    # The document gives false; the effective default is on, and this name does not turn it off (semantics, section 3).
    ("llamafactory", "gradient_checkpointing"): False,
    ("cli_reference", "gradient_checkpointing"): False,
    # max_new_tokens outranks it, says the document, and its default is positive: the documented 1024 never applies.
    ("llamafactory", "max_length"): 1024,
    # Two names of one parameter with contradicting defaults: the first declared one counts.
    ("cli_reference", "attn_implementation"): "disabled",
    ("mindspeed_fsdp2", "use_flash_attn"): "disabled",
}
"""Defaults of secondary names, in our form, that differ from the parameter's default in the vocabulary."""


@cache
def ledger() -> dict[str, Any]:
    return coverage.load_yaml(HERE / "ledger.yaml")


@cache
def concepts() -> dict[str, Any]:
    return coverage.load_yaml(HERE / "concepts.yaml")


DECLARED = [(dialect, name) for dialect in DIALECTS for name in names_in(dialect)]


@pytest.mark.parametrize(("dialect", "name"), DECLARED)
def test_name_and_default_are_those_of_the_document(dialect: str, name: str) -> None:
    """Every declared name is in the ledger, and its documented default, converted, is the default that we declare."""
    entries = coverage.parameters(ledger(), dialect)
    if (dialect, name) in LATER_NAMES:
        assert name not in entries
        return
    entry = entries[name]
    if "default" not in entry:
        return
    row, alias = names_in(dialect)[name]
    documented = CONVERTERS[alias.convert].ours(entry["default"]) if alias.convert else entry["default"]
    if documented is ABSENT:
        return
    if row.base in ("names", "datasets") or (isinstance(documented, int) and row.base == "float"):
        documented = coerce(row, documented)
    expected = OUR_READING.get((dialect, name), row.default_in(dialect))
    assert documented == expected and isinstance(documented, bool) == isinstance(expected, bool)


def test_our_reading_lists_only_names_that_differ() -> None:
    """The exceptions above are exceptions."""
    for (dialect, name), default in OUR_READING.items():
        row, alias = names_in(dialect)[name]
        assert (alias is not row.param.names[dialect][0]) or row.default_in(dialect) == default


@pytest.mark.parametrize("name", sorted(coverage.parameters(coverage.load_yaml(HERE / "ledger.yaml"), "llamafactory")))
def test_every_llamafactory_name_is_honoured_or_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    """At its default every name of the document is accepted silently; at another value it is honoured, or refused as not
    built yet - never unknown."""
    entry = coverage.parameters(ledger(), "llamafactory")[name]
    if name == "help":
        return
    default = False if "negation_of" in entry else entry["default"]
    config = tmp_path / "c.json"
    config.write_text(json.dumps({"dialect": "llamafactory", name: default}))
    read_config([str(config)])
    if coverage.is_declared(name, entry, "llamafactory"):
        return
    config.write_text(json.dumps({"dialect": "llamafactory", name: "something else"}))
    with pytest.raises(ConfigError) as refused:
        read_config([str(config)])
    assert "not built yet" in str(refused.value) or "environment variable" in str(refused.value)


def test_choices_that_we_have_are_choices_of_the_document() -> None:
    """A closed list of choices in the document holds every choice of ours, or the choice is pending or one of these."""
    ours_alone = {
        ("llamafactory", "flash_attn"): set(), ("llamafactory", "ddp_backend"): {"mccl"},
        ("llamafactory", "finetuning_type"): set(), ("llamafactory", "stage"): set(),
    }
    for (dialect, name), more in ours_alone.items():
        row, _ = names_in(dialect)[name]
        documented = {one for one in coverage.parameters(ledger(), dialect)[name]["choices"] if one is not None}
        pending = set(load_pending(dialect).values.get(row.field, ()))
        assert set(row.param.choices or ()) == (documented - pending) | more, name


def test_pending_table_is_fresh() -> None:
    """The generated table is what the ledger and the declarations give; else run
    `python -m tunewright.dialects.coverage tests/spec/ledger.yaml tests/spec/concepts.yaml`."""
    path = ROOT / "src/tunewright/dialects/llamafactory_pending.json"
    assert path.read_text(encoding="utf-8") == coverage.pending_text(ledger(), concepts(), "llamafactory")


@pytest.mark.parametrize(("name", "text"), [("schema.json", reference.schema_text()), ("parameters.md", reference.parameters_text())])
def test_generated_documents_are_fresh(name: str, text: str) -> None:
    """docs/ holds what the declarations give; else run `python -m tunewright.dialects.reference docs`."""
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text


def test_coverage_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """One line per vocabulary; the totals are the numbers of entries that the ledger's head states."""
    assert coverage.main([str(HERE / "ledger.yaml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    totals = {line.split()[2]: line.split()[3].partition("/")[2] for line in lines}
    assert totals == {"llamafactory": "291", "cli_reference": "118", "sft_json": "30", "qlora_script": "34", "mindspeed_fsdp2": "127"}
    honoured = int(lines[0].split()[3].partition("/")[0])
    twins = sum("negation_of" in entry for entry in coverage.parameters(ledger(), "llamafactory").values())
    own = sum(("llamafactory", name) not in LATER_NAMES for name in names_in("llamafactory"))
    assert own < honoured <= own + twins + 1


def test_every_field_says_what_it_means() -> None:
    """Meanings are sentences; readable vocabularies are the two we promise."""
    assert [row.field for row in table().values() if not (row.param.meaning and row.param.meaning.endswith("."))] == []
    assert tuple(READABLE) == ("native", "llamafactory")

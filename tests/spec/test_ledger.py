"""What we declare of the five vocabularies against the ledger of their documents, which is the oracle here."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunewright.config.coerce import coerce
from tunewright.config.param import DIALECTS
from tunewright.config.refused.table import REFUSED, refused_in
from tunewright.config.table import names_in, table
from tunewright.dialects import coverage, reference
from tunewright.dialects.converters import ABSENT, CONVERTERS
from tunewright.dialects.read import read_config
from tunewright.errors import ConfigError

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

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


SPLIT_CONCEPTS: dict[str, set[str]] = {
    # The old switch stands for one value of `debug`, and that one is refused.
    "debug": {"debug", "tpu_metrics_debug"},
}
"""Concepts of the documents whose names are several parameters here, with the reason beside each in a comment."""


def load_yaml(name: str) -> Any:
    """A file of the specification. The C parser is as safe as SafeLoader and ten times as fast."""
    return yaml.load((HERE / name).read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506


@cache
def ledger() -> dict[str, Any]:
    found: dict[str, Any] = load_yaml("ledger.yaml")["dialects"]
    return found


@cache
def coverage_concepts() -> dict[str, Any]:
    found: dict[str, Any] = load_yaml("concepts.yaml")["concepts"]
    return found


@cache
def parameters(dialect: str) -> dict[str, dict[str, Any]]:
    """The ledger's entries of a vocabulary by name."""
    return {entry["name"]: entry for entry in ledger()[dialect.replace("_", "-")]["parameters"]}


DECLARED = [(dialect, name) for dialect in DIALECTS for name in names_in(dialect)]


@pytest.mark.parametrize(("dialect", "name"), DECLARED)
def test_name_and_default_are_those_of_the_document(dialect: str, name: str) -> None:
    """Every declared name is in the ledger, and its documented default, converted, is the default that we declare."""
    if names_in(dialect)[name][1].today:
        assert name not in parameters(dialect)
        return
    entry = parameters(dialect)[name]
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


ENTRIES = [(dialect, name) for dialect in DIALECTS for name in parameters(dialect)]


@pytest.mark.parametrize(("dialect", "name"), ENTRIES)
def test_every_name_is_accepted_at_its_default_and_never_unknown(dialect: str, name: str, tmp_path: Path) -> None:
    """At its documented default every name of a document is accepted silently; at another value it is honoured, or refused with the
    reason - never unknown, never ignored."""
    entry = parameters(dialect)[name]
    if name in coverage.BY_THE_COMMAND_LINE.get(dialect, ()):
        return
    config = tmp_path / "c.json"
    if "default" in entry:
        config.write_text(json.dumps({"dialect": dialect, name: entry["default"]}))
        read_config([str(config)])
    refused = refused_in(dialect).get(name)
    if refused is None:
        assert name in names_in(dialect)
        return
    config.write_text(json.dumps({"dialect": dialect, name: "something else"}))
    with pytest.raises(ConfigError) as report:
        read_config([str(config)])
    assert (refused[0].because in str(report.value)) or "environment variable" in str(report.value)


def test_every_entry_is_accounted_for() -> None:
    """The names that the coverage lists are those of the documents, and names that LLaMA-Factory has today; nothing is left."""
    for dialect in DIALECTS:
        found = coverage.entries(dialect)
        assert {entry.name for entry in found if not entry.today} == set(parameters(dialect))
        assert len(found) == len({entry.name for entry in found})
        assert dialect == "llamafactory" or not any(entry.today for entry in found)
    assert sum(sum(coverage.counts(dialect).values()) for dialect in DIALECTS) == 600


def test_names_of_one_concept_belong_to_one_parameter() -> None:
    """What `concepts.yaml` unifies is one parameter of ours, or refused as one."""
    of = {(dialect, entry.name): entry.concept for dialect in DIALECTS for entry in coverage.entries(dialect)}
    apart = {}
    for concept, facts in coverage_concepts().items():
        ours = {of[dialect.replace("-", "_"), name] for dialect, names in facts["names"].items() for name in names}
        if len(ours) > 1:
            apart[concept] = ours
    assert apart == SPLIT_CONCEPTS


def test_every_documented_choice_is_ours_or_refused() -> None:
    """A value that a document lists is one of our choices, or refused with the reason."""
    for dialect, name in ENTRIES:
        if name not in names_in(dialect):
            continue
        row, alias = names_in(dialect)[name]
        for value in parameters(dialect)[name].get("choices", ()):
            if value is None or row.param.choices is None or value in row.param.refused_values:
                continue
            ours = CONVERTERS[alias.convert].ours(value) if alias.convert else value
            assert all(one in row.param.choices for one in (ours if isinstance(ours, tuple) else (ours,))), (dialect, name, value)


@pytest.mark.parametrize(("name", "text"), [("schema.json", reference.schema_text()), ("parameters.md", reference.parameters_text()),
                                            ("coverage.md", coverage.coverage_text())])
def test_generated_documents_are_fresh(name: str, text: str) -> None:
    """docs/ holds what the declarations give; else run `python -m tunewright.dialects.reference docs`."""
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text


BEYOND_THE_DOCUMENT = {
    # What today's LLaMA-Factory has more, and torch a further library of the same kind.
    ("llamafactory", "rope_scaling"), ("llamafactory", "mix_strategy"), ("llamafactory", "ddp_backend"),
    # `auto` is how the other name of the same parameter leaves the choice to us.
    ("cli_reference", "attn_implementation"),
    # Console is a tracker of the document of sft-json; it is harmless everywhere.
    ("cli_reference", "report_to"), ("sft_json", "report_to"),
}
"""Closed lists of values to which we add some."""


def test_a_closed_list_of_values_is_closed() -> None:
    """A value that we have and the vocabulary's document has not is refused in that vocabulary, by naming those that it has."""
    for dialect, name in ENTRIES:
        entry = parameters(dialect)[name]
        if name not in names_in(dialect) or entry.get("choices_open") or not entry.get("choices"):
            continue
        row, alias = names_in(dialect)[name]
        documented = [CONVERTERS[alias.convert].ours(value) if alias.convert else value for value in entry["choices"]]
        more = {one for one in row.param.choices or () if one not in documented and (one,) not in documented}
        allowed = more if alias.choices is None else more & set(alias.choices)
        assert not allowed or (dialect, name) in BEYOND_THE_DOCUMENT, (dialect, name, allowed)


def test_every_field_says_what_it_means() -> None:
    """Meanings are sentences."""
    assert [row.field for row in table().values() if not (row.param.meaning and row.param.meaning.endswith("."))] == []
    assert [one.concept for one in REFUSED if not one.meaning.endswith(".")] == []


def test_every_field_is_explained_in_chinese_too() -> None:
    """One sentence each, for exactly the parameters there are."""
    meanings = reference.meanings_zh()
    assert set(meanings) == set(table())
    assert all(sentence.endswith("。") and re.search("[\u4e00-\u9fff]", sentence) for sentence in meanings.values())

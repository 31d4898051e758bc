"""Every constraint, requirement and range that the five documents state, and what becomes of it here.

The ledger is the oracle: a row for each of its sentences, word by word. A row is a configuration in that vocabulary that violates the
sentence and the rule (or the note) that says so, values on either side of a bound, a meaning that holds, or the reason why there is
nothing to test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from tests.spec.rows import Breaks, Elsewhere, Fact, Means, Notes, Refused, Reports, Row, Within
from tests.spec.rows_llamafactory import ENFORCED
from tests.spec.rows_llamafactory import ROWS as LLAMAFACTORY
from tests.spec.rows_others import CLI_REFERENCE, MINDSPEED_FSDP2, SFT_JSON
from tests.spec.test_ledger import ledger
from tunewright.config.checks import RULES
from tunewright.config.param import DIALECTS
from tunewright.config.refused.table import refused_in
from tunewright.config.table import names_in, values
from tunewright.dialects.read import Examined, examine

ROOT: Final = Path(__file__).parent.parent.parent
ROWS: Final[dict[str, dict[tuple[str, str], Row]]] = {
    "cli_reference": CLI_REFERENCE, "sft_json": SFT_JSON, "llamafactory": LLAMAFACTORY, "mindspeed_fsdp2": MINDSPEED_FSDP2}
EVERY: Final = [(dialect, name, text) for dialect, rows in ROWS.items() for name, text in rows]


@cache
def stated() -> list[tuple[str, str, str]]:
    """(vocabulary, name, sentence) of the ledger."""
    found = []
    for dialect in DIALECTS:
        for entry in ledger()[dialect.replace("_", "-")]["parameters"]:
            for kind in ("constraints", "requires", "range"):
                said = entry.get(kind, ())
                found += [(dialect, entry["name"], text) for text in (said if isinstance(said, list | tuple) else [said])]
    return found


def test_every_sentence_of_the_ledger_has_a_row() -> None:
    """None is missing, none is invented."""
    assert sorted(EVERY) == sorted(stated())
    assert len(EVERY) == 217


@pytest.mark.parametrize(("dialect", "name", "text"), EVERY, ids=[" ".join(one) for one in EVERY])
def test_sentence(dialect: str, name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the row says happens."""
    monkeypatch.chdir(tmp_path)
    row = ROWS[dialect][name, text]
    _JUDGES[type(row)](row, dialect, name)


@pytest.mark.parametrize(("name", "text"), ENFORCED, ids=[" ".join(one) for one in ENFORCED])
def test_what_llamafactory_enforces(name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the row says happens."""
    monkeypatch.chdir(tmp_path)
    row = ENFORCED[name, text]
    _JUDGES[type(row)](row, "llamafactory", name)


def read(dialect: str, settings: Mapping[str, Any], purpose: Any = "train", words: tuple[str, ...] = ()) -> Examined:
    """What is found in a file of these settings, one a line from line 3 on."""
    Path("c.json").write_text(json.dumps({"dialect": dialect, **settings}, indent=0), encoding="utf-8")
    return examine(["c.json", *words], purpose=purpose)


def place(settings: Mapping[str, Any], key: str) -> str:
    """The beginning of what is said about a key."""
    return f"c.json:{3 + list(settings).index(key)}: {key}"


def _breaks(row: Breaks, dialect: str, name: str) -> None:
    found = {problem.rule: problem.line() for problem in read(dialect, row.settings).problems}
    assert row.rule in found, found
    assert any(found[row.rule].startswith(place(row.settings, key)) for key in row.settings) != row.absent, found
    assert row.rule not in {problem.rule for problem in read(dialect, row.kept).problems}
    assert row.rule in {rule.id for rule in RULES}


def _notes(row: Notes, dialect: str, name: str) -> None:
    examined = read(dialect, row.settings, words=row.words)
    told = [note for note in examined.reading.notes if note.startswith(place(row.settings, row.key or name)) and row.why in note]
    assert len(told) == 1, (examined.reading.notes, examined.problems)
    assert not any(row.why in note for note in read(dialect, row.kept).reading.notes)


def _within(row: Within, dialect: str, name: str) -> None:
    for value in row.bad:
        lines = [problem.line() for problem in read(dialect, {**row.beside, name: value}, None).problems]
        assert any(line.startswith(place({**row.beside, name: value}, name)) for line in lines), (value, lines)
    for value in row.good:
        assert read(dialect, {**row.beside, name: value}, None).problems == ()


def _means(row: Means, dialect: str, name: str) -> None:
    found = values(read(dialect, row.settings, None).reading.resolve().config)
    assert {field: found[field] for field in row.fields} == row.fields


def _reports(row: Reports, dialect: str, name: str) -> None:
    lines = [problem.line() for problem in read(dialect, row.settings, None).problems]
    assert any(line.startswith(place(row.settings, row.key or name)) and row.what in line for line in lines), lines


def _refused(row: Refused, dialect: str, name: str) -> None:
    refused = row.name or name
    assert refused in refused_in(dialect), f"{refused} is honoured now: write a row that shows what becomes of the sentence"
    assert refused not in names_in(dialect)
    lines = [problem.line() for problem in read(dialect, {refused: "something else"}, None).problems]
    assert len(lines) == 1 and lines[0].startswith(f"c.json:3: {refused}: ")


def _elsewhere(row: Elsewhere, dialect: str, name: str) -> None:
    file, function = row.test.split("::")
    assert re.search(rf"^(    )?def {function}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)


def _fact(row: Fact, dialect: str, name: str) -> None:
    assert len(row.why.split()) > 3


_JUDGES: Final[dict[type, Callable[[Any, str, str], None]]] = {
    Breaks: _breaks, Notes: _notes, Within: _within, Means: _means, Reports: _reports, Refused: _refused, Elsewhere: _elsewhere,
    Fact: _fact}


REQUIRED = {
    "llamafactory": {"model_name_or_path": "demo", "do_train": True, "dataset": "d", "output_dir": "out"},
    "cli_reference": {"model_name_or_path": "demo", "finetuning_type": "lora", "dataset": "d", "output_dir": "out"},
    "sft_json": {"model_name_or_path": "demo"}, "qlora_script": {"model_name": "demo"},
    "mindspeed_fsdp2": {"model_name_or_path": "demo", "dataset": "d", "output_dir": "out"},
    "native": {"model_name_or_path": "demo", "dataset": "d", "output_dir": "out"},
}


@pytest.mark.parametrize("dialect", REQUIRED)
def test_defaults_break_no_rule(dialect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with what must be given and nothing else is ready: a document's own defaults are no mistakes of its reader, and no
    value that nobody wrote is noted."""
    monkeypatch.chdir(tmp_path)
    examined = read(dialect, REQUIRED[dialect])
    assert examined.problems == ()
    assert [note for note in examined.reading.notes if "is not read" in note] == []

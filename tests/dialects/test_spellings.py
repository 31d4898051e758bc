"""Every name of the five documents in every spelling. The names, types and defaults are those of the ledger; the oracle is that all
spellings of one setting mean one thing, which is not what is meant without it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.spec.test_ledger import ENTRIES, parameters
from tunewright.config.coerce import BadValueError, coerce
from tunewright.config.param import Alias
from tunewright.config.refused.table import refused_in
from tunewright.config.table import Row, names_in, values
from tunewright.dialects import coverage
from tunewright.dialects.arguments import is_switch, parse_arguments
from tunewright.dialects.converters import ABSENT, CONVERTERS
from tunewright.dialects.known import get_dialect
from tunewright.dialects.read import examine
from tunewright.errors import InputError, UsageError

COMPANIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("cli_reference", "warmup_steps"): {"warmup_ratio": 0},
    ("qlora_script", "evaluation_strategy"): {"val_size": 0.1},
    ("qlora_script", "do_eval"): {"val_size": 0.1},
}
"""What must be said besides for a name to count; given on the command line."""

NOT_THE_DEFAULT: dict[tuple[str, str], tuple[Any, Any]] = {
    ("llamafactory", "push_to_hub_organization"): ("one/", "one"),
    ("cli_reference", "template_file"): ("./one.jinja", "./one.jinja"),
}
"""Values, in our form and in the vocabulary's, of names whose form does not come back as it was written."""

ONE_MEANING: dict[tuple[str, str], tuple[Any, Any]] = {
    ("mindspeed_fsdp2", "optimizer"): ("adamw_torch", "adamw"),
    ("llamafactory", "gradient_checkpointing"): (True, True),
    ("cli_reference", "gradient_checkpointing"): (True, True),
    ("llamafactory", "infer_backend"): ("huggingface", "huggingface"),
    ("cli_reference", "infer_backend"): ("huggingface", "hf"),
    ("llamafactory", "quantization_method"): ("bitsandbytes", "bitsandbytes"),
    ("cli_reference", "quantization_method"): ("bitsandbytes", "bnb"),
}
"""Names that have no value with another effect than the default's, with the value that they take. Checkpointing is on by default, and
false does not turn it off (test_llamafactory, test_cli_reference); the other backends and libraries are refused."""

OURS: dict[str, tuple[Any, ...]] = {
    "int": (7, 3, 2, 1, 64, 4, 8), "float": (7.0, 0.25, 0.5, 2.0, 1e-3), "str": ("other",), "names": (("one", "two"),),
    "numbers": ((0.25, 0.75),), "datasets": (("one.json", "two.json"),), "mapping": ({"num_cycles": 2},),
}
"""Values to choose from, by type, in our form."""


def spellings(dialect: str, name: str, value: Any, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each way to write the setting, with the words of the command line that do it."""
    kebab = name.replace("_", "-")
    sections = get_dialect(dialect).sections.get(name, ())
    mappings = {"snake": {name: value}, "kebab": {kebab: value}}
    mappings |= {f"below {section}": {section: {name: value}} for section in sections}
    mappings |= {f"with {section} in front": {f"{section}.{name}": value} for section in sections[:1]}
    for title, mapping in mappings.items():
        file = folder / f"{title.replace(' ', '_')}.yaml"
        file.write_text(yaml.safe_dump(mapping), encoding="utf-8")
        yield f"yaml, {title}", [str(file)]
    (folder / "c.json").write_text(json.dumps({name: value}), encoding="utf-8")
    yield "json", [str(folder / "c.json")]
    keys = [name, kebab, *(f"{section}.{name}" for section in sections)]
    for text in texts(value):
        yield f"{name}={text}", [f"{name}={text}"]
        for key in dict.fromkeys(keys):
            if text in ("true", "false", "True", "False") or not is_switch(name):
                yield f"--{key} {text}", [f"--{key}", text]
            yield f"--{key}={text}", [f"--{key}={text}"]
    if value is True:
        yield f"--{name}", [f"--{name}"]
        yield f"--{kebab}", [f"--{kebab}"]
    elif value is False and not name.startswith("no_"):
        yield f"--no_{name}", [f"--no_{name}"]
        yield f"--no-{kebab}", [f"--no-{kebab}"]


def texts(value: Any) -> list[str]:
    """The value as it is written on a command line."""
    if isinstance(value, bool):
        return [str(value).lower(), str(value)]
    if isinstance(value, list):
        return [",".join(map(str, value)), json.dumps(value), str(value)]
    if isinstance(value, dict):
        return [json.dumps(value), str(value), ",".join(f"{key}={one}" for key, one in value.items())]
    return [str(value)]


def chosen(row: Row, alias: Alias, default: Any) -> tuple[Any, Any]:
    """A value that is not the default, in our form and in the vocabulary's."""
    candidates: tuple[Any, ...] = (True, False) if row.base == "bool" else OURS[row.base]
    convert, choices = alias.convert, alias.choices or row.param.choices
    if choices:
        candidates = tuple((one,) if row.base == "names" else one for one in choices)
    for ours in candidates:
        theirs = CONVERTERS[convert].theirs(ours) if convert else ours
        theirs = list(theirs) if isinstance(theirs, tuple) else theirs
        try:
            back = CONVERTERS[convert].ours(theirs) if convert else theirs
            if back is not ABSENT and coerce(row, back) == ours and ours != default and isinstance(theirs, str | int | float | list | dict):
                return ours, theirs
        except BadValueError:
            continue
    raise AssertionError(f"no value for {row.field}")


def read(dialect: str, name: str, words: list[str]) -> tuple[Any, list[str]]:
    """The values, and the problems that are not about several parameters."""
    besides = [f"{key}={value}" for key, value in COMPANIONS.get((dialect, name), {}).items()]
    examined = examine([*words, *besides], dialect=dialect)
    return values(examined.reading.config), [one.line() for one in examined.problems if one.rule is None]


HONOURED = [entry for entry in ENTRIES if entry[1] in names_in(entry[0])]
REFUSED = [entry for entry in ENTRIES if entry[1] in refused_in(entry[0])]


def test_every_entry_is_one_or_the_other() -> None:
    """600 entries: honoured, refused, or done by the command line itself; none is both."""
    by_the_command_line = [(dialect, name) for dialect, names in coverage.BY_THE_COMMAND_LINE.items() for name in names]
    assert sorted(HONOURED + REFUSED + by_the_command_line) == sorted(ENTRIES)
    assert len(ENTRIES) == 600


@pytest.mark.parametrize(("dialect", "name"), HONOURED)
def test_every_spelling_of_an_honoured_name(dialect: str, name: str, tmp_path: Path) -> None:
    """The same value, and no other than the default's where the setting is left out."""
    row, alias = get_dialect(dialect).names()[name]
    without = read(dialect, name, [])[0][row.field]
    given = NOT_THE_DEFAULT.get((dialect, name)) or ONE_MEANING.get((dialect, name))
    ours, theirs = given or chosen(row, alias, without)
    assert (ours == without) == ((dialect, name) in ONE_MEANING)
    for title, words in spellings(dialect, name, theirs, tmp_path):
        found, problems = read(dialect, name, words)
        assert (title, found[row.field], problems) == (title, ours, [])


@pytest.mark.parametrize(("dialect", "name"), REFUSED)
def test_every_spelling_of_a_refused_name(dialect: str, name: str, tmp_path: Path) -> None:
    """At a value that would change something it is refused in every spelling, with the reason, or sent to the environment if it is a
    secret; at its documented default it is accepted in every spelling."""
    parameter, inert = refused_in(dialect)[name]
    positive = refused_in(dialect).get(name.removeprefix("no_"))
    harmless = inert.values if positive is None or name[:3] != "no_" else tuple(not one for one in positive[1].values)
    for title, words in spellings(dialect, name, harmful(harmless), tmp_path):
        _, problems = read(dialect, name, words)
        assert len(problems) == 1, (title, problems)
        assert parameter.because in problems[0] or "environment variable" in problems[0], (title, problems)
    entry = parameters(dialect)[name]
    if entry.get("default") is None:
        return
    for title, words in spellings(dialect, name, entry["default"], tmp_path):
        assert (title, read(dialect, name, words)[1]) == (title, [])


def harmful(inert: tuple[Any, ...]) -> Any:
    """A value of the kind of the inert ones that is none of them."""
    first = inert[0] if inert else "something"
    if isinstance(first, bool):
        return next((one for one in (True, False) if one not in inert), "something")
    return next(one for one in (["something"] if isinstance(first, list) else "something", "else") if one not in inert)


SWITCHES = [(dialect, name) for dialect, name in ENTRIES if parameters(dialect)[name]["type"].startswith("bool") and name != "help"]


@pytest.mark.parametrize(("dialect", "name"), SWITCHES)
def test_a_bare_switch_takes_no_word(dialect: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A true-or-false parameter of a document needs no value: the word after it is a file, or another setting."""
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").touch()
    found = parse_arguments([f"--{name}", "a.yaml", f"--{name.replace('_', '-')}"])
    assert found.files == ("a.yaml",)
    assert [(one.name, one.value) for one in found.written] == [(name, True), (name, True)]


VALUED = [(dialect, name) for dialect, name in ENTRIES if not parameters(dialect)[name]["type"].startswith("bool")
          and not any(parameters(other).get(name, {}).get("type", "").startswith("bool") for other, _ in ENTRIES)]


@pytest.mark.parametrize(("dialect", "name"), VALUED)
def test_a_value_is_not_forgotten(dialect: str, name: str) -> None:
    """Where a document wants a value, a bare name is an error that says so."""
    with pytest.raises(UsageError, match=f"^command line: --{name}: a value is missing; write --{name} VALUE$"):
        examine([f"--{name}"], dialect=dialect)


def test_deprecated_names_are_told_where_the_document_deprecates_them(tmp_path: Path) -> None:
    """What the ledger marks as deprecated is accepted with a note at its default; evaluation_strategy, no_cuda and tpu_metrics_debug
    are live in the other vocabularies, and bring no note there."""
    file = tmp_path / "c.json"
    for dialect, name in ENTRIES:
        entry = parameters(dialect)[name]
        old = bool(entry.get("deprecated"))
        if "default" not in entry or (old and entry["default"] is None and name in names_in(dialect)):
            continue
        file.write_text(json.dumps({name: entry["default"]}))
        notes = [note for note in examine([str(file)], dialect=dialect).reading.notes if "an old name" in note]
        assert len(notes) == int(old), (dialect, name)


@pytest.mark.parametrize("text", ["{'a': __import__('os')}", "{'a': 1", "[1,"])
def test_a_literal_is_data(text: str) -> None:
    """What is no literal is refused, and nothing of it is run."""
    with pytest.raises(InputError):
        found = examine([f"lr_scheduler_kwargs={text}"], dialect="llamafactory")
        raise InputError("\n".join(one.line() for one in found.problems if "lr_scheduler_kwargs" in one.line()))

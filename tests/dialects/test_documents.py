"""YAML and JSON files: values against PyYAML's and json's own parsers, lines counted by hand, hostile files refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tunewright.dialects.document import read_document
from tunewright.errors import InputError

TEXT = """# a comment
model_name_or_path: demo
lora:
  lora_rank: 8

  lora_target: [q, v]
"quoted key": 'yes'
dataset:
  - file_name: a.json
    columns: {prompt: q}
learning_rate: 1e-4
"""


def write(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_yaml_values_and_lines(tmp_path: Path) -> None:
    """Values as yaml.safe_load has them, keys on the lines on which they stand above."""
    document = read_document(write(tmp_path / "c.yaml", TEXT))
    assert document.values == yaml.safe_load(TEXT)
    assert document.lines == {
        ("model_name_or_path",): 2, ("lora",): 3, ("lora", "lora_rank"): 4, ("lora", "lora_target"): 6, ("quoted key",): 7,
        ("dataset",): 8, ("dataset", "file_name"): 9, ("dataset", "columns"): 10, ("dataset", "columns", "prompt"): 10,
        ("learning_rate",): 11}


def test_json_values_and_lines(tmp_path: Path) -> None:
    """The same for JSON, whose keys may hold escapes and brackets; a byte order mark is no part of it."""
    text = '\ufeff{"a": 1,\n "b": {"c}\\"": [1, {"d": "}"}],\n\n"e": null}, "f": -1.5e3\n, "g": true}'
    document = read_document(write(tmp_path / "c.json", text))
    assert document.values == json.loads(text.removeprefix("\ufeff"))
    assert document.lines == {("a",): 1, ("b",): 2, ("b", 'c}"'): 2, ("b", 'c}"', "d"): 2, ("b", "e"): 4, ("f",): 4, ("g",): 5}


def test_merge_keys_and_anchors(tmp_path: Path) -> None:
    """`<<` fills in what is not given, as safe_load does it."""
    text = "base: &b {x: 1, y: 2}\nrun:\n  <<: *b\n  y: 3\nother: *b\n"
    assert read_document(write(tmp_path / "c.yaml", text)).values == yaml.safe_load(text)


def test_suffix_decides_and_else_the_first_letter(tmp_path: Path) -> None:
    """Without a known suffix, { means JSON; YAML that looks like JSON is read as YAML under .yaml."""
    assert read_document(write(tmp_path / "config", '{"a": 1}')).values == {"a": 1}
    assert read_document(write(tmp_path / "c.yaml", '{"a": 1, # comment\n b: 2}')).values == {"a": 1, "b": 2}


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
trees = st.dictionaries(st.text(min_size=1, max_size=6), st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=8), min_size=1)


@given(trees, st.sampled_from([None, 1]))
def test_any_json_object_comes_back(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, object], indent: int | None) -> None:
    """What json wrote is read unchanged, and every key of the top has a line."""
    path = tmp_path_factory.getbasetemp() / "any.json"
    document = read_document(write(path, json.dumps(tree, indent=indent)))
    assert document.values == tree
    assert {keys for keys in document.lines if len(keys) == 1} == {(key,) for key in tree}


HOSTILE = [
    ("bomb.yaml", "a: &a [1]\n" + "".join(f"{b}: &{b} [{', '.join('*' + a for _ in range(9))}]\n"
                                         for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)),
     "bomb.yaml:1: an alias that holds itself, or too many values; write the values out"),
    ("self.yaml", "a: &a [*a]\n", "self.yaml:1: an alias that holds itself, or too many values; write the values out"),
    ("deep.yaml", "".join(" " * depth + "a:\n" for depth in range(40)), "deep.yaml:33: nested deeper than 32 levels; write a flatter file"),
    ("deep.json", '{"a":' * 5000 + "1" + "}" * 5000, "deep.json: nested deeper than 32 levels; write a flatter file"),
    ("latin.yaml", b"a: 1\nb: \xe9\n", "latin.yaml:2: not UTF-8 text (byte 8); save the file as UTF-8"),
    ("two.yaml", "a: 1\n---\nb: 2\n", "two.yaml:2:1: not valid YAML: but found another document; correct the syntax there"),
    ("date.yaml", "a: !!timestamp x\n", None),
    ("bool.yaml", "a: !!int x\n", "bool.yaml:1: 'x' is not a valid int; put a text in quotes"),
    ("control.yaml", "a: \x01\n", "control.yaml:1: the character #x0001 is not allowed in YAML; remove it"),
    ("tab.json", '{"a": "\t"}', "tab.json:1:8: not valid JSON: Invalid control character at; correct the syntax there"),
]


@pytest.mark.parametrize(("name", "text", "report"), HOSTILE, ids=[name for name, _, _ in HOSTILE])
def test_hostile_files(name: str, text: str | bytes, report: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, at once, for files that would exhaust or fool a parser."""
    monkeypatch.chdir(tmp_path)
    write(Path(name), text)
    if report is None:
        assert read_document(name).values == {"a": "x"}
        return
    with pytest.raises(InputError) as refused:
        read_document(name)
    assert str(refused.value) == report


def test_dates_stay_texts(tmp_path: Path) -> None:
    """YAML's dates are no parameter's type: a run named 2024-01-31 keeps its name."""
    assert read_document(write(tmp_path / "c.yaml", "run_name: 2024-01-31\n")).values == {"run_name": "2024-01-31"}


def test_missing_file_names_a_neighbour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typo in the file's name."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "train.yaml", "a: 1")
    with pytest.raises(InputError, match=r"^tarin\.yaml: no such file; did you mean train\.yaml\?$"):
        read_document("tarin.yaml")
    with pytest.raises(InputError, match=r"is a directory, not a configuration file; name a YAML or JSON file$"):
        read_document(str(tmp_path))

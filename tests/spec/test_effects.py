"""Every honoured parameter has a test, marked with its name, that shows what changing it changes."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from scripts import generate

from tests.spec.test_ledger import coverage_concepts
from tunewright.config.table import table
from tunewright.dialects.coverage import effects, entries, refused_values

ROOT = Path(__file__).parents[2]


def test_the_registry_is_what_the_marks_say() -> None:
    """Else run `make docs`."""
    assert generate.effects() == (ROOT / "src/tunewright/dialects/effects.json").read_text(encoding="utf-8")


def test_every_parameter_has_an_effect() -> None:
    """And every mark names a parameter."""
    assert sorted(set(table()) - set(effects())) == []
    assert sorted(set(effects()) - set(table())) == []


def test_everything_about_preferences_and_rewards_is_honoured() -> None:
    """Every name that the documents have in this area is honoured, no value of it is refused, and a test shows its effect."""
    concepts = coverage_concepts()
    names = [name for concept in concepts.values() if concept["area"] == "RLHF / preference" for name in concept["names"]["llamafactory"]]
    found = {entry.name: entry for entry in entries("llamafactory")}
    assert len(names) == 19 and {found[name].status for name in names} == {"honoured"}
    assert [name for name in names if found[name].concept not in effects()] == []
    assert {found[name].concept for name in names} & {field for field, _, _ in refused_values()} == set()


def test_the_tests_that_are_named_exist() -> None:
    """As functions that pytest collects from the top of their files."""
    for parameter, node in effects().items():
        path, _, name = node.partition("::")
        functions = {one.name for one in ast.parse((ROOT / path).read_text(encoding="utf-8")).body if isinstance(one, ast.FunctionDef)}
        assert name in functions and name.startswith("test_"), f"{parameter}: {node}"


@pytest.mark.parametrize(("text", "found"), [
    ('@pytest.mark.effect("a", "b")\ndef test_x(): ...\n', [("test_x", "a"), ("test_x", "b")]),
    ('@pytest.mark.slow\n@pytest.mark.effect("a")\n@pytest.mark.parametrize("n", [1])\ndef test_x(n): ...\n', [("test_x", "a")]),
    ('@pytest.mark.effect("a")\ndef helper(): ...\n', []),
    ("def test_x(): ...\n", []),
])
def test_marks_are_read_from_the_source(text: str, found: list[tuple[str, str]], tmp_path: Path) -> None:
    path = tmp_path / "test_a.py"
    path.write_text(text)
    assert generate._marks(path) == found


def test_a_mark_names_its_parameters_literally() -> None:
    """A computed name would be in no registry."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.effect":
                assert node.args and all(isinstance(one, ast.Constant) and isinstance(one.value, str) for one in node.args), path
    assert json.loads(generate.effects())

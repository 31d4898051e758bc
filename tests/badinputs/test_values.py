"""Wrong settings, in every form in which they can be written: YAML in two vocabularies, JSON, three forms of the command line.

The answers in the table are written by hand from what a user needs: the place, the key as written, what is wrong, what to write.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.badinputs.workspace import assert_refused
from tunewright.selftest.bad_case import LLAMAFACTORY, NATIVE, case, written
from tunewright.selftest.bad_settings import WRONG, Wrong, expected


def _id(wrong: Wrong) -> str:
    return f"{wrong.key}={wrong.value[:24]}"


@pytest.mark.parametrize("wrong", WRONG, ids=_id)
def test_native_yaml(wrong: Wrong, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In our own vocabulary, for check and train alike: the same line, nothing written."""
    text = written(NATIVE, {wrong.key: wrong.value})
    Path("c.yaml").write_text(text)
    line = 1 + [row.partition(":")[0] for row in text.splitlines()].index(wrong.key)
    one = case(wrong.key, expected(f"c.yaml:{line}", wrong.key, wrong))
    for verb in ("check", "train"):
        assert_refused(here, [verb, "c.yaml"], one, capsys)


@pytest.mark.parametrize("wrong", WRONG, ids=_id)
def test_llamafactory_yaml(wrong: Wrong, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In LLaMA-Factory's vocabulary."""
    text = written(LLAMAFACTORY, {wrong.key: wrong.value})
    Path("c.yaml").write_text(text)
    line = 1 + [row.partition(":")[0] for row in text.splitlines()].index(wrong.key)
    assert_refused(here, ["train", "c.yaml"], case(wrong.key, expected(f"c.yaml:{line}", wrong.key, wrong)), capsys)


@pytest.mark.parametrize("wrong", WRONG, ids=_id)
def test_json(wrong: Wrong, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a JSON file."""
    values = {key: yaml.safe_load(value) for key, value in {**NATIVE, wrong.key: wrong.value}.items()}
    text = json.dumps(values, indent=1)
    Path("c.json").write_text(text)
    line = 1 + next(number for number, row in enumerate(text.splitlines()) if f'"{wrong.key}"' in row)
    assert_refused(here, ["train", "c.json"], case(wrong.key, expected(f"c.json:{line}", wrong.key, wrong)), capsys)


@pytest.mark.parametrize("form", ["{key}={value}", "--{key}={value}", "--{kebab}={value}"])
@pytest.mark.parametrize("wrong", WRONG, ids=_id)
def test_command_line(wrong: Wrong, form: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the command line, under the name as it was typed there."""
    Path("c.yaml").write_text(written(NATIVE, {}))
    word = form.format(key=wrong.key, kebab=wrong.key.replace("_", "-"), value=wrong.value.strip("\"'"))
    typed = word.partition("=")[0]
    one = case(wrong.key, expected("command line", typed, wrong._replace(key=typed)))
    assert_refused(here, ["check", "c.yaml", word], one, capsys)

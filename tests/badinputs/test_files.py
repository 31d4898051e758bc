"""Wrong files: configuration, data, model, adapter, template, output directory. The answers in the table are written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.badinputs.workspace import answer, assert_lines, assert_refused, tree
from tunewright.selftest.bad_case import NATIVE, Case, written
from tunewright.selftest.bad_files import ADAPTER, DATA, MODEL, OUTPUT, TEMPLATE


@pytest.mark.parametrize("one", [*DATA, *MODEL, *ADAPTER, *TEMPLATE, *OUTPUT], ids=lambda one: one.name.replace(" ", "-"))
def test_file(one: Case, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` and `train` say the same, and nothing is written."""
    Path("c.yaml").write_text(written(NATIVE, one.settings))
    if one.spoil is not None:
        one.spoil(here)
    for verb in ("check", "train"):
        assert_refused(here, [verb, "c.yaml", *one.words], one, capsys)


def test_learning_rate_above_one_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A rate above 1 is unusual, not impossible: `check` passes and tells."""
    Path("c.yaml").write_text(written(NATIVE, {"learning_rate": "3"}))
    before = tree(here)
    capsys.readouterr()
    from tunewright.cli import main

    assert main(["check", "c.yaml"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "note: c.yaml:7: learning_rate: 3 is far above any rate that trains; 1e-5 to 1e-3 is usual"
    assert tree(here) == before


def test_the_base_is_ready(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the cases spoil is good before they do: without this, every case could pass for a wrong reason."""
    Path("c.yaml").write_text(written(NATIVE, {}))
    code, lines = answer(["check", "c.yaml"], capsys)
    assert_lines(lines, ())
    assert code == 0

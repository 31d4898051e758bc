"""Environment variables: what they set, that those without effect are told, and that nothing secret is shown."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tunewright import cli
from tunewright.config.environment import VARIABLES
from tunewright.config.table import table
from tunewright.dialects.read import read_config


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for one in VARIABLES:
        if one.sets or one.instead:
            monkeypatch.delenv(one.name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("text", ["seed: 1\n", "dialect: llamafactory\nseed: 1\n", "dialect: qlora_script\nlora_r: 4\n"])
def test_a_variable_stands_above_the_file_and_below_the_command_line(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every vocabulary; `explain` names the variable."""
    Path("c.yaml").write_text(text)
    monkeypatch.setenv("NPROC_PER_NODE", "3")
    reading = read_config(["c.yaml"])
    assert reading.config.run.num_processes == 3
    assert reading.origins["num_processes"].describe() == "environment (NPROC_PER_NODE)"
    assert read_config(["c.yaml", "--num_processes", "2"]).config.run.num_processes == 2
    Path("d.yaml").write_text("num_processes: 5\n")
    assert read_config(["d.yaml"]).config.run.num_processes == 3


@pytest.mark.parametrize(("text", "level"), [("INFO", "info"), ("WARN", "warning"), ("WARNING", "warning"), ("debug", "debug")])
def test_levels_may_be_written_as_llamafactory_has_them(text: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the names of Python's logging, whose own table of names is the oracle for those in capital letters."""
    monkeypatch.setenv("LLAMAFACTORY_VERBOSITY", text)
    assert read_config(["seed=1"]).config.logging.log_level == level
    assert logging.getLevelName(text.upper()) == logging.getLevelName(level.upper())


def test_a_wrong_value_names_the_variable(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPROC_PER_NODE", "gpu")
    assert cli.main(["check", "seed=1"]) == 2
    assert "environment: NPROC_PER_NODE: 'gpu' is not an integer or null; " in capsys.readouterr().err


def test_what_has_no_effect_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As a note of every reading and in `env`; a variable that is switched off is not."""
    monkeypatch.setenv("NNODES", "2")
    monkeypatch.setenv("USE_RAY", "0")
    told = "NNODES is set, and has no effect here: put torchrun with --nnodes in front on each machine"
    assert read_config(["seed=1"]).notes == (told,)
    assert cli.main(["env"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("NNODES"))
    assert line.split(None, 1)[1] == "2 (no effect: put torchrun with --nnodes in front on each machine)"


def test_no_secret_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for one in VARIABLES:
        if one.secret:
            monkeypatch.setenv(one.name, "CANARYVALUE")
    assert cli.main(["env"]) == 0
    out = capsys.readouterr().out
    assert "CANARYVALUE" not in out and "HF_TOKEN" in out


def test_every_variable_is_listed_and_sets_a_parameter_that_exists(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["env", "--variables"]) == 0
    out = capsys.readouterr().out
    assert all(any(line.startswith(f"{one.name} ") for line in out.splitlines()) for one in VARIABLES)
    assert {one.sets for one in VARIABLES if one.sets} <= set(table())
    assert len({one.name for one in VARIABLES}) == len(VARIABLES)

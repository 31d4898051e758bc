"""The set-up of `make`: what is stale, broken or in the wrong place is seen; what is done is not done again.

Nothing is installed here: environments are empty ones, and pip is a stand-in that records how it was called.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.repository.source import ROOT


@pytest.fixture(scope="module")
def environment() -> ModuleType:
    """scripts/environment.py as a module."""
    spec = importlib.util.spec_from_file_location("environment", ROOT / "scripts" / "environment.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the two files that decide what is installed."""
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def installs(environment: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The calls of pip."""
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(environment, "_pip", lambda python, *arguments: calls.append(arguments))
    return calls


def test_the_fingerprint_changes_with_all_that_decides_an_installation(environment: ModuleType, clone: Path) -> None:
    """Profile, requirements, pins and the place of the clone; nothing else changes it."""
    first = environment.fingerprint(clone, "demo")
    assert environment.fingerprint(clone, "demo") == first
    others = {first, environment.fingerprint(clone, "test")}
    for name in ("pyproject.toml", "constraints.txt"):
        (clone / name).write_text((clone / name).read_text() + "# changed\n")
        others.add(environment.fingerprint(clone, "demo"))
    moved = clone / "moved"
    moved.mkdir()
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(clone / name, moved / name)
    others.add(environment.fingerprint(moved, "demo"))
    assert len(others) == 5


@pytest.mark.slow
def test_an_environment_is_made_once_and_mended_when_it_breaks(
        environment: ModuleType, clone: Path, installs: list[tuple[str, ...]]) -> None:
    """One life of an environment, step by step: made, kept, widened, shared, damaged, moved, cut off in the middle."""
    venv, python = clone / ".venv", clone / ".venv" / "bin" / "python"
    environment.prepare(clone, "demo")
    assert (environment.usable(python), installs.pop()[-1]) == (True, f"{clone}[arrow,demo]")
    environment.prepare(clone, "demo")
    assert installs == []
    environment.prepare(clone, "test")
    assert installs.pop()[-1] == f"{clone}[arrow,demo,metrics,onnx,quant,tensorboard,dev]"
    environment.prepare(clone, "demo")
    assert installs == [], "the environment for tests does for the demo"
    (pip,) = venv.glob("lib/python*/site-packages/pip")
    (pip / "__main__.py").unlink()
    assert environment.incomplete(python) == ["pip"]
    environment.prepare(clone, "test")
    assert (len(installs), environment.incomplete(python)) == (1, [])
    (venv / ".tunewright-place").write_text("/elsewhere/.venv/bin/python")
    assert not environment.usable(python)
    shutil.rmtree(venv / "bin")
    environment.prepare(clone, "test")
    assert (environment.usable(python), len(installs)) == (True, 2)


def test_a_failed_installation_leaves_no_stamp(environment: ModuleType, clone: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    """pip fails: one line says so, the exit code is 1, and the next start tries again."""
    def fail(python: Path, *arguments: str) -> None:
        raise subprocess.CalledProcessError(1, ["pip", *arguments])

    monkeypatch.setattr(environment, "_pip", fail)
    monkeypatch.setattr(environment, "_make", lambda venv: venv.mkdir(exist_ok=True))
    monkeypatch.setattr(environment, "usable", lambda python: True)
    monkeypatch.setattr(environment, "incomplete", lambda python, *options: [])
    monkeypatch.setattr(environment, "ROOT", clone)
    (clone / ".venv").mkdir()
    assert environment.main(["demo"]) == 1
    assert "goes on where it stopped" in capsys.readouterr().err
    assert not list((clone / ".venv").glob(".tunewright-demo"))


def test_make_without_a_python_that_will_do_says_so_in_one_line(tmp_path: Path) -> None:
    """A PATH on which `python3` is too old: no traceback, no environment, the version that is needed."""
    for tool in ("sh", "make", "grep", "sed"):
        os.symlink(shutil.which(tool) or "", tmp_path / tool)
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run([str(tmp_path / "make"), "environment"], cwd=ROOT, env={"PATH": str(tmp_path)},
                          capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == (
        "error: tunewright needs Python 3.11 or newer (tried: python3); install it, or: make PYTHON=/path/to/python3.12 ...")


def test_make_finds_the_python_that_it_is_told(tmp_path: Path) -> None:
    """`make PYTHON=...` wins over the PATH."""
    seen = tmp_path / "seen"
    chosen = tmp_path / "chosen"
    chosen.write_text(f'#!/bin/sh\ncase "$1" in scripts/*) echo "$@" > {seen};; *) exec {sys.executable} "$@";; esac\n')
    chosen.chmod(0o755)
    done = subprocess.run(["make", f"PYTHON={chosen}", "environment"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, seen.read_text()) == (0, "scripts/environment.py demo\n")

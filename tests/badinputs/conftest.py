"""The folder that every case of bad input starts from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.badinputs.workspace import copy_workspace
from tunewright.selftest.tiny import write_model, write_rows


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in `model` and eight rows in `rows.jsonl`."""
    folder = tmp_path_factory.mktemp("ready")
    write_model(folder / "model")
    write_rows(folder / "rows.jsonl", 8)
    return folder


@pytest.fixture
def here(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as working directory."""
    folder = copy_workspace(original, tmp_path / "here")
    monkeypatch.chdir(folder)
    return folder

"""A tiny workspace and a kill server for all tests of the store."""

from __future__ import annotations

import pytest

from tunewright.selftest.killing import Server, server
from tunewright.selftest.workspace import Workspace


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.make(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def kill_server() -> Server:
    return server()

"""A tiny workspace and a kill server for all tests of the store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine.resuming import Workspace
from tests.harness.killing import Server, server


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.make(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def kill_server() -> Iterator[Server]:
    with server() as running:
        yield running

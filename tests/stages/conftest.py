"""What tests of whole runs share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tunewright.selftest.killing import Server, server


@pytest.fixture(autouse=True)
def quiet_random() -> Iterator[None]:
    """Runs seed the process's generators; other tests must not notice."""
    with torch.random.fork_rng():
        yield


@pytest.fixture(scope="session")
def kill_server() -> Server:
    return server()

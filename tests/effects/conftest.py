"""What tests of effects share: a workspace for each file, and random numbers and switches of the process left as they were."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tunewright.selftest.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.make(tmp_path_factory.mktemp("runs"))


@pytest.fixture(autouse=True)
def quiet_random() -> Iterator[None]:
    """Runs seed the process's generators, and may demand determinism; other tests must not notice."""
    with torch.random.fork_rng():
        yield
    torch.use_deterministic_algorithms(False)

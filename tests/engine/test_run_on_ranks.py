"""A run on two ranks trains what one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunewright.selftest.killing import Case, Server, server
from tunewright.selftest.workspace import Workspace, results

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.make(tmp_path_factory.mktemp("ranks"))


def straight(kill_server: Server, scenario: str, settings: dict[str, str]) -> dict[str, Any]:
    """What the uninterrupted run leaves."""
    outcome = kill_server.run(Case(scenario, {"settings": settings}, settings["output_dir"]))
    assert outcome.code == 0, outcome.output
    return results(Path(settings["output_dir"]))


def test_two_ranks_train_what_one_does(workspace: Workspace, tmp_path: Path) -> None:
    """Identity: batches of 2 on two ranks are batches of 4 on one; every logged loss and gradient norm to 1e-5, LoRA in float32."""
    one = straight(server(), "train", workspace.settings(tmp_path / "one", logging_steps=1))
    two = straight(server(), "train_on_two_ranks", workspace.settings(
        tmp_path / "two", logging_steps=1, per_device_train_batch_size=2))
    assert len(one["state"]["log_history"]) == 12
    for ours, theirs in zip(one["state"]["log_history"], two["state"]["log_history"], strict=True):
        assert theirs == pytest.approx(ours, rel=1e-5)

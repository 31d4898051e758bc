"""What the store's tests share: one run as a case of the kill server."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tunewright.selftest.killing import Case, Ended, Server
from tunewright.selftest.workspace import Workspace


def run(server: Server, workspace: Workspace, output_dir: Path, scenario: str = "train", **changes: Any) -> Ended:
    """One run of the workspace's settings with `changes`, undisturbed."""
    return server.run(Case(scenario, {"settings": workspace.settings(output_dir, **changes)}, str(output_dir)))


def finished(server: Server, workspace: Workspace, output_dir: Path, **changes: Any) -> Path:
    """The output directory of a run that ended well."""
    outcome = run(server, workspace, output_dir, **changes)
    assert outcome.code == 0, outcome.output
    return output_dir


def copy(source: Path, target: Path) -> Path:
    """A copy of an output directory, in place of what is there."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target

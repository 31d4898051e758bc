"""A damaged checkpoint is passed over, by name, and the run ends as it would have.

Oracle: the same run undisturbed, compared bit for bit. Every file with every damage is the matter of `tunewright.selftest.damage`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.store.running import copy, finished, run
from tunewright.engine.checkpoint import CheckpointStore
from tunewright.runtime import Ranks
from tunewright.selftest.killing import Server
from tunewright.selftest.workspace import Workspace, results

pytestmark = pytest.mark.slow

def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def chosen(output_dir: Path) -> tuple[int, list[str]]:
    """The step of the checkpoint that a run would go on from, and the lines that say what it passes over."""
    said: list[str] = []
    run_id = json.loads((output_dir / "run.json").read_text())["run_id"]
    found = CheckpointStore(output_dir, run_id, Ranks()).newest_intact(said.append)
    return (0 if found is None else found.step), said


@contextmanager
def put_back(path: Path) -> Iterator[bytes]:
    """The bytes of a file, which has them again after the block."""
    content = path.read_bytes()
    try:
        yield content
    finally:
        path.write_bytes(content)


def test_a_manifest_that_is_still_json_but_edited_is_damaged(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    """Each of its fields changed or dropped in turn; a file with no entry would otherwise go unguarded. Two runs go on to their end."""
    straight = finished(kill_server, workspace, tmp_path / "straight")
    expected = results(straight)
    path = straight / "checkpoint-12" / "manifest.json"
    manifest = json.loads(path.read_text())
    edits = {
        "step": 3, "format": 2, "run_id": "0" * 16, "world_size": 2, "files": manifest["files"][1:], "digest": "0" * 64,
        "settings": {**manifest["settings"], "learning_rate": 0.5}}
    assert set(edits) == set(manifest)
    for name, value in edits.items():
        for edited in ({**manifest, name: value}, {key: one for key, one in manifest.items() if key != name}):
            with put_back(path):
                path.write_text(json.dumps(edited))
                assert chosen(straight) == (9, [f"{path.parent}: manifest.json is missing or damaged; falling back to the checkpoint "
                                                "before it"]), name
                if edited.get("run_id") == "0" * 16 or "files" not in edited:
                    output_dir = copy(straight, tmp_path / "edited")
                    outcome = run(kill_server, workspace, output_dir)
                    assert outcome.code == 0, (name, outcome.output)
                    assert "checkpoint-12: manifest.json is missing or damaged; falling back" in outcome.output, name
                    assert "(step 9)" in outcome.output and results(output_dir) == expected, name


@pytest.mark.parametrize("name", ["manifest.json", "optimizer.safetensors"])
def test_with_every_checkpoint_damaged_the_run_is_refused(
    kill_server: Server, workspace: Workspace, tmp_path: Path, name: str
) -> None:
    output_dir = finished(kill_server, workspace, tmp_path / "run")
    for checkpoint in output_dir.glob("checkpoint-*"):
        empty(checkpoint / name)
    before = sorted(path.name for path in output_dir.iterdir())
    outcome = run(kill_server, workspace, output_dir, "command_line")
    assert outcome.code == 2, outcome.output
    assert [line for line in outcome.output.splitlines() if line.startswith("error:")] == [
        f"error: none of the checkpoints in {output_dir} is intact; overwrite_output_dir=true starts afresh"]
    assert sorted(path.name for path in output_dir.iterdir()) == before


def test_a_damaged_checkpoint_that_cannot_be_told_to_be_ours_is_kept(
    kill_server: Server, workspace: Workspace, tmp_path: Path
) -> None:
    """Its manifest is gone, so whose it is nobody knows: the new checkpoint 12 takes its name, and it stays under another."""
    output_dir = finished(kill_server, workspace, tmp_path / "run")
    missing(output_dir / "checkpoint-12" / "manifest.json")
    kept = sorted(path.name for path in (output_dir / "checkpoint-12").iterdir())
    outcome = run(kill_server, workspace, output_dir)
    assert outcome.code == 0 and "it is now" in outcome.output, outcome.output
    assert sorted(path.name for path in (output_dir / "set-aside-checkpoint-12").iterdir()) == kept
    assert (output_dir / "checkpoint-12" / "manifest.json").is_file()

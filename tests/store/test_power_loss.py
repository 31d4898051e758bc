"""Power loss: what was not forced to the disk is gone. Shown from the journal of a run's file operations.

Oracle: POSIX alone. A file's bytes are safe after an fsync of it that follows its last write; a name is safe after an fsync of its
directory that follows its making. Runs that lose the rest are those of `tunewright.selftest.power`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tunewright.selftest.killing import Case, Server
from tunewright.selftest.power import path_of
from tunewright.selftest.workspace import Workspace

pytestmark = pytest.mark.slow
MAKES = ("open", "mkdir", "rename", "link")


def journal(kill_server: Server, workspace: Workspace, output_dir: Path, scenario: str = "train", **changes: object) -> list[str]:
    """The operations of a run that ended well; renames as `rename <to> < <from>`, writes as `write <path> <bytes>`."""
    settings = workspace.settings(output_dir, **changes)
    outcome = kill_server.run(Case(scenario, {"settings": settings}, str(output_dir), "count"))
    assert outcome.code == 0, outcome.output
    return list(outcome.operations)


def last(operations: Sequence[str], *starts: str) -> int:
    """Place of the last operation that is one of `starts`; -1 if there is none."""
    return max((place for place, one in enumerate(operations) if one in starts), default=-1)


def check_publication(operations: Sequence[str], folder: str, place: int, manifest: dict[str, object]) -> int:
    """`folder` is safe when the rename at `place` publishes it: each file after all writing but the manifest's, and each
    directory after its last entry. Returns the files checked."""
    before = operations[:place]
    names = [entry["name"] for entry in manifest["files"]]  # type: ignore[index]
    touched = [number for number, one in enumerate(before) if one.split(" ")[0] in ("open", "write", "truncate", "rename")
               and path_of(one).startswith(f"{folder}/") and "manifest.json" not in path_of(one)]
    for name in names:
        assert last(before, f"fsync {folder}/{name}") > max(touched), name
    new = f"{folder}/.manifest.json.new"
    named = last(before, f"rename {folder}/manifest.json < {new}")
    assert max(touched) < last(before, *(one for one in before if one.startswith(f"write {new} "))) < last(before, f"fsync {new}") < named
    for inner in {str(Path(name).parent) for name in names}:
        path = folder if inner == "." else f"{folder}/{inner}"
        made = [number for number, one in enumerate(before) if one.split(" ")[0] in MAKES and str(Path(path_of(one)).parent) == path]
        assert last(before, f"fsync {path}") > max(made, default=-1), path
    assert operations[place + 1] == "fsync ", "the parent directory comes next"
    return len(names) + 1


@pytest.mark.parametrize(("scenario", "changes"), [
    ("train", {}), ("train", {"finetuning_type": "full", "lr_scheduler_type": "constant"}),
    ("train", {"pissa_init": True, "pissa_iter": 4}),
    ("train_on_two_ranks", {"per_device_train_batch_size": 2})])
def test_every_file_is_safe_before_it_is_published(
    kill_server: Server, workspace: Workspace, tmp_path: Path, scenario: str, changes: dict[str, object]
) -> None:
    """All four checkpoints, the record of the run, and the final weights."""
    operations = journal(kill_server, workspace, tmp_path / "run", scenario, save_total_limit=9, **changes)
    published = [place for place, one in enumerate(operations) if one.startswith("rename /checkpoint-")]
    assert [operations[place] for place in published] == [f"rename /checkpoint-{step} < /.staging-{step}" for step in (3, 6, 9, 12)]
    for place in published:
        target, _, source = operations[place].removeprefix("rename ").partition(" < ")
        manifest = json.loads((tmp_path / "run" / target[1:] / "manifest.json").read_text())
        checked = check_publication(operations, source, place, manifest)
        assert checked == sum(path.is_file() for path in (tmp_path / "run" / target[1:]).rglob("*"))
    record = operations.index("rename /run.json < /.run.json.new")
    assert operations[record - 1] == "fsync /.run.json.new" and operations[record + 1] == "fsync "
    check_final_weights(operations, tmp_path / "run")


def check_final_weights(operations: Sequence[str], output_dir: Path) -> None:
    """Each is safe in its staging directory before it takes its name, and the names are safe at the end."""
    moved = [place for place, one in enumerate(operations) if " < /.staging-final/" in one]
    assert any("model.safetensors" in operations[place] for place in moved)
    for place in moved:
        target, _, source = operations[place].removeprefix("rename ").partition(" < ")
        writes = [number for number, one in enumerate(operations) if one.split(" ")[0] in ("open", "write") and path_of(one) == source]
        assert max(writes, default=-1) < last(operations[:place], f"fsync {source}"), target
        assert (output_dir / target[1:]).is_file()
    assert operations.index("fsync ", moved[-1]) > moved[-1]

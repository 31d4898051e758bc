"""Power loss: what was not forced to the disk is gone. Shown from the journal of a run's file operations.

Oracle: POSIX alone. A file's bytes are safe after an fsync of it that follows its last write; a name is safe after an fsync of its
directory that follows its making. Then the stand-in: a run killed at an operation, all that was not safe emptied, run again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.engine.resuming import Workspace, copied, results, states
from tests.harness.killing import Case, Server
from tests.harness.settling import check_all
from tests.store.running import copy

pytestmark = pytest.mark.slow
MAKES = ("open", "mkdir", "rename", "link")


def journal(kill_server: Server, workspace: Workspace, output_dir: Path, scenario: str = "train", **changes: object) -> list[str]:
    """The operations of a run that ended well; renames as `rename <to> < <from>`, writes as `write <path> <bytes>`."""
    settings = workspace.settings(output_dir, **changes)
    outcome = kill_server.run(Case(scenario, {"settings": settings}, str(output_dir), "count"))
    assert outcome.code == 0, outcome.output
    return list(outcome.operations)


def path_of(operation: str) -> str:
    what, _, rest = operation.partition(" ")
    return rest.rpartition(" ")[0] if what == "write" else rest.partition(" < ")[0]


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


def unsafe(operations: Sequence[str], root: Path) -> list[Path]:
    """The files below `root` that a loss of power after `operations` may empty."""
    safe: dict[str, bool] = {}
    for operation in operations:
        what, path = operation.split(" ")[0], path_of(operation)
        if what in ("open", "write", "truncate"):
            safe[path] = False
        elif what == "fsync":
            safe[path] = True
        elif what == "rename":
            source = operation.partition(" < ")[2]
            for name in [one for one in safe if one == source or one.startswith(f"{source}/")]:
                safe[path + name[len(source):]] = safe.pop(name)
    return [path for path in root.rglob("*") if path.is_file() and not safe.get(f"/{path.relative_to(root)}", False)]


def test_what_was_not_forced_to_the_disk_is_lost_and_the_run_ends_the_same(
    kill_server: Server, workspace: Workspace, tmp_path: Path
) -> None:
    """At every operation; and right after each publication, whose rename is then undone as well."""
    settings = workspace.settings(tmp_path / "run", lora_dropout=0.2)
    operations = copied(kill_server, "train", settings, tmp_path / "copies")
    expected = results(tmp_path / "run")
    found, emptied = states(tmp_path / "copies"), 0
    for point, root in list(found.items()):
        for path in unsafe(operations[: int(point) - 1], root):
            path.write_bytes(b"")
            emptied += 1
        if int(point) > 1 and operations[int(point) - 2].startswith("rename /checkpoint-"):
            target, _, source = operations[int(point) - 2].removeprefix("rename ").partition(" < ")
            found[f"{point}, undone"] = copy(root, tmp_path / "copies" / f"{point}-undone")
            (found[f"{point}, undone"] / target[1:]).rename(found[f"{point}, undone"] / source[1:])
    assert len(found) >= 300 and emptied >= len(found) and sum("undone" in name for name in found) == 4
    check_all(kill_server, "train", settings, found, expected)

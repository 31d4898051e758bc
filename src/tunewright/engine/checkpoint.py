"""The checkpoint store: a checkpoint is complete or absent.

All ranks write into `.staging-<step>`; every file is synced and hashed; `manifest.json` (name, size, sha256 of every file, run id,
step, settings) is written last; the directory is renamed to `checkpoint-<step>` and its parent synced. Only directories with an
intact manifest of this run count, are rotated and are resumed from. Nothing else in the output directory is ever touched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunewright.engine.durable import demand_space, sha256, size_of, storage_errors, sync_directory, sync_file, write_json
from tunewright.errors import StorageError, TunewrightError
from tunewright.runtime import Ranks

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
KEPT_AT_LEAST: Final = 2
"""Newest checkpoints that rotation never touches: were the last one damaged, the one before must still be there."""

_NAME = re.compile(r"checkpoint-(\d+)")
_STAGING = re.compile(r"\.staging-(\d+)")
_TRASH = re.compile(r"\.trash-\d+")

Writer = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A directory whose manifest can be read; whether its files are intact `damage` tells."""

    path: Path
    step: int
    manifest: Mapping[str, Any]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The recorded settings of the run that made it."""
        found: Mapping[str, Any] = self.manifest["settings"]
        return found


@dataclass(frozen=True, slots=True)
class Content:
    """What goes into a checkpoint: `shared` is written by the main rank, `own` by every rank; `settings` go into the manifest."""

    shared: Writer
    own: Writer
    settings: Mapping[str, Any]


@dataclass(slots=True)
class CheckpointStore:
    """The checkpoints of one run in one output directory."""

    root: Path
    run_id: str
    ranks: Ranks

    def publish(self, step: int, content: Content, *, estimate: int) -> Path:
        """Commit `checkpoint-<step>`, or raise StorageError on every rank with nothing published and nothing lost.

        `estimate`: bytes that the first checkpoint is expected to take; later ones are expected to be as large as the last.
        """
        staging = self.root / f".staging-{step}"
        need = self._expected(estimate)
        self._together(need, lambda: self._begin(staging, need))
        self._together(need, lambda: content.own(staging), staging)
        self._together(need, lambda: self._complete(staging, step, content), staging)
        return self.root / f"checkpoint-{step}"

    def committed(self) -> list[Checkpoint]:
        """This run's checkpoints, oldest first. Other directories, whatever their name, are not among them."""
        if not self.root.is_dir():
            return []
        found = [read_checkpoint(path) for path in self.root.iterdir() if _NAME.fullmatch(path.name)]
        mine = [one for one in found if one is not None and one.manifest["run_id"] == self.run_id]
        return sorted(mine, key=lambda one: one.step)

    def newest_intact(self, report: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint whose every file is as its manifest says; each damaged one is reported and passed over."""
        for checkpoint in reversed(self.committed()):
            problems = damage(checkpoint)
            if not problems:
                return checkpoint
            report(f"{checkpoint.path}: {problems[0]}; falling back to the checkpoint before it")
        return None

    def rotate(self, limit: int | None, keep: Iterable[int]) -> None:
        """Delete the oldest checkpoints beyond `limit`, never the newest two and never the steps of `keep`."""
        if limit is None or not self.ranks.is_main:
            return
        kept = set(keep)
        old = self.committed()[: -max(limit, KEPT_AT_LEAST)]
        for checkpoint in old:
            if checkpoint.step not in kept:
                self._discard(checkpoint.path, checkpoint.step)

    def recover(self) -> None:
        """Finish what a killed process left: publish a staged checkpoint that is whole, remove the others and the trash.

        Call once on the main rank, holding the run's lock.
        """
        for path in sorted(self.root.iterdir()) if self.root.is_dir() else ():
            staged = _STAGING.fullmatch(path.name)
            if staged and not self._is_whole(path, int(staged.group(1))):
                shutil.rmtree(path)
            elif staged:
                self._put_in_place(path, int(staged.group(1)))
            elif _TRASH.fullmatch(path.name):
                shutil.rmtree(path)

    def _expected(self, estimate: int) -> int:
        before = self.committed()
        return size_of(before[-1].path) if before else estimate

    def _together(self, need: int, act: Callable[[], None], staging: Path | None = None) -> None:
        """Run `act` on this rank; if it failed on any, remove the staging directory and raise on all."""
        failure: TunewrightError | None = None
        try:
            with storage_errors(self.root, need):
                act()
        except TunewrightError as error:
            failure = error
        (failed,) = self.ranks.all_reduce_sum([float(failure is not None)])
        if not failed:
            return
        if staging is not None and self.ranks.is_main:
            shutil.rmtree(staging, ignore_errors=True)
        raise failure or StorageError("another rank could not write its part of the checkpoint", where=str(self.root),
                                      mend="see what it printed")

    def _begin(self, staging: Path, need: int) -> None:
        if not self.ranks.is_main:
            return
        demand_space(self.root, need)
        if staging.exists():
            shutil.rmtree(staging)
        staging.mkdir(parents=True)

    def _complete(self, staging: Path, step: int, content: Content) -> None:
        """On the main rank: its files, everything synced and hashed, the manifest, the rename."""
        if not self.ranks.is_main:
            return
        content.shared(staging)
        files = sorted(path for path in staging.rglob("*") if path.is_file())
        for path in files:
            sync_file(path)
        entries = [{"name": path.relative_to(staging).as_posix(), "size": path.stat().st_size, "sha256": sha256(path)} for path in files]
        for folder in {path.parent for path in files}:
            sync_directory(folder)
        write_json(staging / MANIFEST, {
            "format": FORMAT, "run_id": self.run_id, "step": step, "world_size": self.ranks.world_size,
            "settings": dict(content.settings), "files": entries})
        self._put_in_place(staging, step)

    def _put_in_place(self, staging: Path, step: int) -> None:
        """Rename to the final name. An older checkpoint of the same step makes way only now, when the new one is whole on disk."""
        final = self.root / f"checkpoint-{step}"
        trash = self.root / f".trash-{step}"
        if final.exists():
            if trash.exists():
                shutil.rmtree(trash)
            os.rename(final, trash)
        os.rename(staging, final)
        sync_directory(self.root)
        if trash.exists():
            shutil.rmtree(trash)

    def _discard(self, path: Path, step: int) -> None:
        trash = self.root / f".trash-{step}"
        if trash.exists():
            shutil.rmtree(trash)
        os.rename(path, trash)
        sync_directory(self.root)
        shutil.rmtree(trash)

    def _is_whole(self, staging: Path, step: int) -> bool:
        checkpoint = read_checkpoint(staging)
        return checkpoint is not None and checkpoint.manifest["run_id"] == self.run_id and checkpoint.step == step and not damage(checkpoint)


def read_checkpoint(path: Path) -> Checkpoint | None:
    """The checkpoint in a directory, or None if its manifest is missing, unreadable or of another format."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        usable = manifest["format"] == FORMAT and isinstance(manifest["run_id"], str) and isinstance(manifest["files"], list)
        return Checkpoint(path, int(manifest["step"]), manifest) if usable and isinstance(manifest["settings"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def damage(checkpoint: Checkpoint) -> list[str]:
    """What differs from the manifest, a line per file; empty if the checkpoint is intact. Files it does not list do not matter."""
    problems = []
    for entry in checkpoint.manifest["files"]:
        path = checkpoint.path / entry["name"]
        if not path.is_file():
            problems.append(f"{entry['name']} is missing")
        elif path.stat().st_size != entry["size"]:
            problems.append(f"{entry['name']} has {path.stat().st_size} bytes instead of {entry['size']}")
        elif sha256(path) != entry["sha256"]:
            problems.append(f"{entry['name']} does not have the sha256 of the manifest")
    return problems

"""The checkpoint store: a checkpoint is complete or absent.

All ranks write into `.staging-<step>`; every file is synced and hashed; `manifest.json` (name, size, sha256 of every file, run id,
step, settings) is written last; the directory is renamed to `checkpoint-<step>` and its parent synced. Only directories with an
intact manifest of this run count, are rotated and are resumed from. Nothing else in the output directory is ever deleted; what
stands where a checkpoint must go is moved to `set-aside-checkpoint-<step>`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from tunewright.durable import SMALL, demand_space, sha256, size_of, storage_errors, sync_directory, sync_file, write_json
from tunewright.errors import StorageError, TunewrightError
from tunewright.runtime import Ranks

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
KEPT_AT_LEAST: Final = 2
"""Newest checkpoints that rotation never touches: were the last one damaged, the one before must still be there."""

log = logging.getLogger(__name__)

_OURS_ALONE: Final = (MANIFEST, "train_state.json")
"""Files that no other tool writes into a `checkpoint-<step>`: one that has either and no readable manifest is a damaged one of ours."""
_NAME = re.compile(r"checkpoint-(\d+)")
_STAGING = re.compile(r"\.staging-(\d+)")
_TRASH = re.compile(r"\.trash-(\d+)")

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
    _verified: set[int] = field(default_factory=set, repr=False)
    """Steps whose files this process has hashed, when it wrote them or since."""

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
        return sorted((one for one in found if one is not None and self._is_mine(one)), key=lambda one: one.step)

    def unreadable(self) -> list[Path]:
        """Directories that were checkpoints of ours, of this run or another, and have lost their manifest; oldest first."""
        named = [path for path in self.root.iterdir() if _NAME.fullmatch(path.name)] if self.root.is_dir() else []
        lost = [path for path in named if read_checkpoint(path) is None and any((path / name).exists() for name in _OURS_ALONE)]
        return sorted(lost, key=_number)

    def newest_intact(self, report: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint whose every file is as its manifest says; each damaged one is reported and passed over."""
        lost = self.unreadable()
        for checkpoint in reversed(self.committed()):
            while lost and _number(lost[-1]) > checkpoint.step:
                report(_passed_over(lost.pop(), f"{MANIFEST} is missing or damaged"))
            problems = damage(checkpoint)
            if not problems:
                self._verified.add(checkpoint.step)
                return checkpoint
            report(_passed_over(checkpoint.path, problems[0]))
        for path in reversed(lost):
            report(_passed_over(path, f"{MANIFEST} is missing or damaged"))
        return None

    def rotate(self, limit: int | None, keep: Iterable[int]) -> None:
        """Delete what is older than the newest `limit` verified checkpoints, but at least two; never the steps of `keep`.

        A damaged checkpoint does not count, so it takes no intact one's place. Raises StorageError if the disk refuses.
        """
        if limit is None or not self.ranks.is_main:
            return
        spared, kept = set(keep), 0
        for checkpoint in reversed(self.committed()):
            if kept < max(limit, KEPT_AT_LEAST):
                kept += self._is_verified(checkpoint)
            elif checkpoint.step not in spared:
                with storage_errors(self.root, SMALL):
                    self._discard(checkpoint.path, checkpoint.step)

    def recover(self) -> None:
        """Finish what a killed process left: publish a staged checkpoint that is whole, remove the others and the trash.

        Call once on the main rank, holding the run's lock.
        """
        for path in sorted(self.root.iterdir()) if self.root.is_dir() else ():
            staged, trash = _STAGING.fullmatch(path.name), _TRASH.fullmatch(path.name)
            if staged and not self._is_whole(path, int(staged.group(1))):
                shutil.rmtree(path)
            elif staged:
                self._put_in_place(path, int(staged.group(1)))
            elif trash and path.exists() and not self._bring_back(path, int(trash.group(1))):
                shutil.rmtree(path)

    def set_aside_after(self, step: int, report: Callable[[str], None]) -> None:
        """Rename this run's checkpoints of later steps to `set-aside-checkpoint-<step>`; nothing is deleted.

        A run that goes back to an earlier checkpoint takes another way from there: what it left behind must not count as newest.
        """
        for checkpoint in self.committed():
            if self.ranks.is_main and checkpoint.step > step:
                shelf = self.root / f"set-aside-{checkpoint.path.name}"
                number = 2
                while shelf.exists():
                    shelf = self.root / f"set-aside-{checkpoint.path.name}-{number}"
                    number += 1
                os.rename(checkpoint.path, shelf)
                report(f"{checkpoint.path.name} is later than the checkpoint to go on from; it is now {shelf.name}")
        self.ranks.barrier()

    def _bring_back(self, trash: Path, step: int) -> bool:
        """Put a discarded checkpoint back where its successor was lost: killed between two renames, then damaged."""
        final = self.root / f"checkpoint-{step}"
        if final.exists() or not self._is_whole(trash, step) or any(one.step >= step for one in self.committed()):
            return False
        os.rename(trash, final)
        sync_directory(self.root)
        return True

    def _is_mine(self, checkpoint: Checkpoint) -> bool:
        """Made by this run, at the place where the run made it: a renamed or linked copy is the user's."""
        path = checkpoint.path
        return checkpoint.manifest["run_id"] == self.run_id and path.name == f"checkpoint-{checkpoint.step}" and not path.is_symlink()

    def _is_verified(self, checkpoint: Checkpoint) -> bool:
        """Whether every file is there at its size, and was hashed: once per process, for that takes a reading of them all."""
        if checkpoint.step in self._verified:
            return not any(_misfit(checkpoint, entry) for entry in checkpoint.manifest["files"])
        if damage(checkpoint):
            return False
        self._verified.add(checkpoint.step)
        return True

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
        entries = [{"name": path.relative_to(staging).as_posix(), "size": path.stat().st_size, "sha256": sha256(path)}
                   for path in files]
        for folder in sorted(path for path in staging.rglob("*") if path.is_dir()):
            sync_directory(folder)
        manifest = {
            "format": FORMAT, "run_id": self.run_id, "step": step, "world_size": self.ranks.world_size,
            "settings": dict(content.settings), "files": entries}
        write_json(staging / MANIFEST, {**manifest, "digest": _digest(manifest)})
        self._put_in_place(staging, step)
        self._verified.add(step)

    def _put_in_place(self, staging: Path, step: int) -> None:
        """Rename to the final name. An older checkpoint of the same step makes way only now, when the new one is whole on disk;
        what is not this run's, or can no longer be told to be, is set aside."""
        final = self.root / f"checkpoint-{step}"
        former = self._make_way(final, step) if os.path.lexists(final) else None
        try:
            os.rename(staging, final)
        except BaseException:
            if former is not None:
                os.rename(former, final)
            raise
        sync_directory(self.root)
        trash = self.root / f".trash-{step}"
        if trash.exists():
            shutil.rmtree(trash)

    def _make_way(self, final: Path, step: int) -> Path:
        """Move what has the final name to the trash if it is this run's, else aside; where it is now."""
        there = read_checkpoint(final)
        if there is not None and self._is_mine(there):
            place = self.root / f".trash-{step}"
            if place.exists():
                shutil.rmtree(place)
        else:
            place = _free_name(self.root, f"set-aside-{final.name}")
            log.warning("%s is not an intact checkpoint of this run: it is now %s", final, place)
        os.rename(final, place)
        return place

    def _discard(self, path: Path, step: int) -> None:
        trash = self.root / f".trash-{step}"
        if trash.exists():
            shutil.rmtree(trash)
        os.rename(path, trash)
        sync_directory(self.root)
        shutil.rmtree(trash)

    def _is_whole(self, staging: Path, step: int) -> bool:
        checkpoint = read_checkpoint(staging)
        if checkpoint is None or checkpoint.manifest["run_id"] != self.run_id or checkpoint.step != step:
            return False
        return not damage(checkpoint)


def read_checkpoint(path: Path) -> Checkpoint | None:
    """The checkpoint in a directory, or None if its manifest is missing, altered or of another format."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        digest = manifest.pop("digest")
        usable = manifest["format"] == FORMAT and digest == _digest(manifest) and _is_complete(manifest)
        return Checkpoint(path, manifest["step"], manifest) if usable else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _is_complete(manifest: Mapping[str, Any]) -> bool:
    """Whether everything is there that is read of a manifest, and every file it names lies inside the checkpoint."""
    is_a_run = type(manifest["step"]) is int and isinstance(manifest["run_id"], str) and isinstance(manifest["settings"], dict)
    return is_a_run and isinstance(manifest["files"], list) and all(
        type(one["size"]) is int and isinstance(one["sha256"], str) and _is_inside(one["name"]) for one in manifest["files"])


def _is_inside(name: Any) -> bool:
    return isinstance(name, str) and "\0" not in name and not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts


def damage(checkpoint: Checkpoint) -> list[str]:
    """What differs from the manifest, a line per file; empty if the checkpoint is intact. Files it does not list do not matter.

    A file that cannot be read is damaged like one that is gone.
    """
    found = (_misfit(checkpoint, entry) or _altered(checkpoint, entry) for entry in checkpoint.manifest["files"])
    return [problem for problem in found if problem is not None]


def _misfit(checkpoint: Checkpoint, entry: Mapping[str, Any]) -> str | None:
    """What is wrong with a file as far as its size tells."""
    path = checkpoint.path / entry["name"]
    try:
        if not path.is_file():
            return f"{entry['name']} is missing"
        size = path.stat().st_size
    except OSError as error:
        return f"{entry['name']} cannot be read ({error.strerror})"
    return None if size == entry["size"] else f"{entry['name']} has {size} bytes instead of {entry['size']}"


def _altered(checkpoint: Checkpoint, entry: Mapping[str, Any]) -> str | None:
    try:
        same = sha256(checkpoint.path / entry["name"]) == entry["sha256"]
    except OSError as error:
        return f"{entry['name']} cannot be read ({error.strerror})"
    return None if same else f"{entry['name']} does not have the sha256 of the manifest"


def _digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the manifest's own content: an edited one is as good as a damaged one."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _passed_over(path: Path, problem: str) -> str:
    return f"{path}: {problem}; falling back to the checkpoint before it"


def _number(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _free_name(root: Path, name: str) -> Path:
    """`name` in `root`, with a number behind it if that is taken."""
    numbered = (root / (name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
    return next(path for path in numbered if not os.path.lexists(path))

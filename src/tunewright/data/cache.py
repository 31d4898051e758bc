"""Token cache: what a data set becomes is kept under the hash of everything it depends on, and every hit and miss says why.

An entry is a folder `<digest>` with four `.npy` files, a fifth where rows are marked, `notes.jsonl` and, written last, `manifest.json`
with the size and sha256 of each. It is made under a lock per digest: of several processes one tokenises, the others wait. What is
tokenised goes to shards in `.building-<digest>` as it is made. A run that was killed leaves them there, and the next one that wants the
same goes on from them. When all are there they are laid end to end in the entry's files, and the folder is renamed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from tunewright.data.audit import Note, notes_from_lines
from tunewright.data.examples import TokenStore
from tunewright.data.shards import Shard, lay_end_to_end, unwritable
from tunewright.durable import sync_directory, sync_file
from tunewright.errors import InputError

Report = Callable[[str], None]

_ARRAYS: Final = ("input_ids", "labels", "offsets", "origins")
_VERSION: Final = 1
_COMPARED_ENTRIES: Final = 200
_BUILDING: Final = ".building-"
_OLD_STAGING: Final = ".staging-"
_LEFTOVER_AGE_S: Final = 7 * 86400
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class Tokenised:
    """One data set as tokens: the store, how many rows were read for it, and what became of the others."""

    store: TokenStore
    rows: int
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class Built:
    """The shards of a data set in order, and how many rows were read for them."""

    shards: tuple[tuple[Path, Shard], ...]
    rows: int


Build = Callable[[Path], Built]
"""Writes what shards a folder lacks, and gives them all."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What the tokens of a data set depend on: component -> text or digest. `subject` names the data set in messages."""

    subject: str
    components: Mapping[str, str]

    @property
    def digest(self) -> str:
        """sha256 over all components."""
        return hashlib.sha256(json.dumps([_VERSION, sorted(self.components.items())]).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class TokenCache:
    """The cache in `folder`; `overwrite` builds every entry anew."""

    folder: Path
    overwrite: bool
    report: Report

    def get(self, fingerprint: Fingerprint, files: Sequence[str], build: Build) -> Tokenised:
        """The stored result, or that of `build`, stored. `files` are today's names of the files that origins refer to.

        A folder that can only be read is read. One that cannot be used is said and does not stop the run. Raises `StorageError` for one
        that is full.
        """
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self._lock(fingerprint))
                found = self._hit(fingerprint, files)
                building = self.folder / f"{_BUILDING}{fingerprint.digest}"
                if found is None:
                    self._clear_leftovers()
                    if self.overwrite:
                        shutil.rmtree(building, ignore_errors=True)
                    building.mkdir(exist_ok=True)
            except OSError as error:
                if error.errno in _FULL:
                    raise unwritable(self.folder, error) from error
                kept = self._kept(fingerprint, files)
                if kept is not None:
                    return kept
                self._say_unusable(error)
                return without_cache(files, build)
            return found if found is not None else self._made(fingerprint, files, building, build)

    def _kept(self, fingerprint: Fingerprint, files: Sequence[str]) -> Tokenised | None:
        """What lies in a folder that can only be read, where nobody else writes either: an entry is whole or absent."""
        try:
            is_there = not self.overwrite and (self.folder / fingerprint.digest).exists()
            return self._hit(fingerprint, files) if is_there else None
        except OSError:
            return None

    def holds(self, fingerprint: Fingerprint) -> bool:
        """Whether there is an entry, and it is to be used."""
        return not self.overwrite and (self.folder / fingerprint.digest).is_dir()

    def _made(self, fingerprint: Fingerprint, files: Sequence[str], building: Path, build: Build) -> Tokenised:
        entry = self.folder / fingerprint.digest
        try:
            built = build(building)
            _finish(building, fingerprint, built, files)
            if entry.exists():
                shutil.rmtree(entry)
            building.rename(entry)
            sync_directory(self.folder)
        except InputError:
            # Rows that must be mended, so that nothing will ask for these shards again.
            shutil.rmtree(building, ignore_errors=True)
            raise
        except OSError as error:
            raise unwritable(self.folder, error) from error
        return _load(entry, _checked(entry), files)

    def _say_unusable(self, error: OSError) -> None:
        self.report(f"token cache: not used, {error.strerror or error}: {error.filename or self.folder}; "
                    "set data_cache_dir to a folder that can be written, or to none")

    def _hit(self, fingerprint: Fingerprint, files: Sequence[str]) -> Tokenised | None:
        entry = self.folder / fingerprint.digest
        if self.overwrite:
            self.report(f"token cache: {fingerprint.subject} is tokenised anew (overwrite_cache)")
            return None
        if not entry.exists():
            self.report(f"token cache: miss for {fingerprint.subject}: {self._why(fingerprint)}")
            return None
        manifest = _read_manifest(entry)
        broken = "its manifest is missing or damaged" if manifest is None else damage(entry, manifest)
        if manifest is None or broken is not None:
            self.report(f"token cache: {fingerprint.subject} is tokenised anew: {broken} ({entry})")
            return None
        try:
            found = _load(entry, manifest, files)
        except (ValueError, KeyError, TypeError, AttributeError):  # whole as its own manifest says, and not what this program writes
            self.report(f"token cache: {fingerprint.subject} is tokenised anew: {entry} was not written by tunewright")
            return None
        self.report(f"token cache: hit for {fingerprint.subject}: the same data files, tokenizer, template, settings and code")
        return found

    def _clear_leftovers(self) -> None:
        """Remove what runs that were stopped more than a week ago had made, unless somebody goes on with it now."""
        for leftover in (*self.folder.glob(f"{_BUILDING}*"), *self.folder.glob(f"{_OLD_STAGING}*")):
            with contextlib.suppress(OSError):
                if time.time() - leftover.stat().st_mtime > _LEFTOVER_AGE_S:
                    with self._lock_file(leftover.name.removeprefix(_BUILDING)).open("w") as file:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(leftover, ignore_errors=True)

    def _why(self, fingerprint: Fingerprint) -> str:
        """Which components differ from the entry that differs least, among those of the same data set if there are any."""
        manifests = [manifest for manifest in map(_read_manifest, self._entries()) if manifest is not None]
        same = [manifest for manifest in manifests if manifest["subject"] == fingerprint.subject]
        if not same:
            return "not tokenised before"
        changed = min((_changed(manifest["components"], fingerprint.components) for manifest in same), key=len)
        return f"{', '.join(changed)} changed since it was last tokenised"

    def _entries(self) -> list[Path]:
        """The newest entries, newest first."""
        found = [entry for entry in self.folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
        return sorted(found, key=lambda entry: entry.stat().st_mtime, reverse=True)[:_COMPARED_ENTRIES]

    @contextlib.contextmanager
    def _lock(self, fingerprint: Fingerprint) -> Iterator[None]:
        """One process at a time per digest; the lock goes with the process, and with those that work for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock_file(fingerprint.digest).open("w") as file:
            if not _locked_at_once(file):
                self.report(f"token cache: waiting for another run that tokenises {fingerprint.subject}")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _lock_file(self, digest: str) -> Path:
        return self.folder / f".lock-{digest[:16]}"


def without_cache(files: Sequence[str], build: Build) -> Tokenised:
    """The result of `build` in files that are gone when the process ends."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="tunewright-tokens-"))
    except OSError as error:
        raise unwritable(Path(tempfile.gettempdir()), error) from error
    try:
        _finish(folder, Fingerprint("", {}), build(folder), files)
        return _load(folder, _checked(folder), files)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        # What is mapped stays until it is given back.
        shutil.rmtree(folder, ignore_errors=True)


def _locked_at_once(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def file_digest(path: Path) -> str:
    """sha256 of the content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    return [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]


def _finish(folder: Path, fingerprint: Fingerprint, built: Built, files: Sequence[str]) -> None:
    """Make the folder an entry: its shards laid end to end, the manifest last, and the shards gone."""
    sizes = lay_end_to_end(built.shards, folder)
    manifest = {"version": _VERSION, "subject": fingerprint.subject, "components": dict(fingerprint.components),
                "rows": built.rows, "origin_files": list(files), "files": sizes}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
    sync_file(folder / "manifest.json")
    for path in folder.iterdir():
        if path.name not in sizes and path.name != "manifest.json":
            path.unlink()
    sync_directory(folder)


def _checked(entry: Path) -> dict[str, Any]:
    """The manifest of an entry that was just made."""
    manifest = _read_manifest(entry)
    if manifest is None:
        raise OSError(errno.EIO, "an entry was changed while it was made", str(entry))
    return manifest


def _read_manifest(entry: Path) -> dict[str, Any] | None:
    """The manifest of an entry, or None if it cannot be trusted to be one."""
    try:
        manifest = json.loads((entry / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    keys = {"version", "subject", "components", "rows", "origin_files", "files"}
    complete = isinstance(manifest, dict) and keys <= manifest.keys() and manifest["version"] == _VERSION
    return manifest if complete and isinstance(manifest["components"], dict) and isinstance(manifest["origin_files"], list) else None


def damage(entry: Path, manifest: Mapping[str, Any]) -> str | None:
    """Which of the files in `manifest["files"]` is not as it was written, and how; None if all are."""
    if not isinstance(manifest["files"], dict):
        return "its manifest names no files"
    for name, wanted in manifest["files"].items():
        if not isinstance(wanted, dict) or not wanted.keys() >= {"size", "sha256"}:
            return f"its manifest does not say what is in {name}"
        path = entry / name
        if not os.path.isfile(path):
            return f"{name} is missing"
        if path.stat().st_size != wanted["size"]:
            return f"{name} has {path.stat().st_size} bytes, {wanted['size']} wanted"
        if file_digest(path) != wanted["sha256"]:
            return f"{name} does not match its checksum"
    return None


def _load(entry: Path, manifest: Mapping[str, Any], files: Sequence[str]) -> Tokenised:
    names = dict(zip(manifest["origin_files"], files, strict=True))
    notes = notes_from_lines((entry / "notes.jsonl").read_text(encoding="utf-8"))
    renamed = tuple(replace(note, origin=replace(note.origin, file=names[note.origin.file])) for note in notes)
    return Tokenised(open_store(entry, tuple(files)), manifest["rows"], renamed)


def open_store(folder: Path, files: tuple[str, ...]) -> TokenStore:
    """The rows whose arrays lie in the folder; a folder without marks is one of rows that have none."""
    arrays = {name: mapped(folder / f"{name}.npy") for name in _ARRAYS}
    marks = folder / "marks.npy"
    return TokenStore(**arrays, marks=mapped(marks) if marks.exists() else np.zeros(len(arrays["origins"]), np.int8), files=files)


def mapped(path: Path) -> Any:
    """The array in a file, as a memory map unless it is empty, which cannot be one."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        return np.load(path, allow_pickle=False)

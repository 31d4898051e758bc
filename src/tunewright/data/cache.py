"""Token cache: what a data set becomes is kept under the hash of everything it depends on, and every miss says what changed.

An entry is a folder `<digest>` with four `.npy` files, `notes.jsonl` and, written last, `manifest.json` with the size and sha256 of
each. It is made in a staging folder and renamed, under a lock per digest: of several processes one tokenises, the others wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from tunewright.data.audit import Note, notes_from_lines, notes_to_lines
from tunewright.data.examples import TokenStore
from tunewright.data.records import Origin
from tunewright.durable import sync_directory, sync_file

Report = Callable[[str], None]

_ARRAYS: Final = ("input_ids", "labels", "offsets", "origins")
_VERSION: Final = 1
_COMPARED_ENTRIES: Final = 200
_STAGING: Final = ".staging-"
_LEFTOVER_AGE_S: Final = 86400


@dataclass(frozen=True, slots=True)
class Tokenised:
    """One data set as tokens: the store, how many rows were read for it, and what became of the others."""

    store: TokenStore
    rows: int
    notes: tuple[Note, ...]


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

    def get(self, fingerprint: Fingerprint, files: Sequence[str], build: Callable[[], Tokenised]) -> Tokenised:
        """The stored result, or that of `build`, stored. `files` are today's names of the files that origins refer to.

        A folder that cannot be written is said and does not stop the run.
        """
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self._lock(fingerprint.digest))
                found = self._hit(fingerprint, files)
            except OSError as error:
                self._say_unusable(error)
                return build()
            if found is not None:
                return found
            made = build()
            try:
                self._store(fingerprint, made)
            except OSError as error:
                self._say_unusable(error)
            return made

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
        damage = "its manifest is missing or damaged" if manifest is None else _damage(entry, manifest)
        if manifest is None or damage is not None:
            self.report(f"token cache: {fingerprint.subject} is tokenised anew: {damage} ({entry})")
            return None
        self.report(f"token cache: hit for {fingerprint.subject}")
        return _load(entry, manifest, files)

    def _store(self, fingerprint: Fingerprint, made: Tokenised) -> None:
        if len(made.store) == 0:
            return
        self._clear_leftovers()
        staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=self.folder))
        try:
            _write(staging, fingerprint, made)
            entry = self.folder / fingerprint.digest
            if entry.exists():
                shutil.rmtree(entry)
            staging.rename(entry)
            sync_directory(self.folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _clear_leftovers(self) -> None:
        """Remove what runs that were killed more than a day ago were writing."""
        for leftover in self.folder.glob(f"{_STAGING}*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - leftover.stat().st_mtime > _LEFTOVER_AGE_S:
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
    def _lock(self, digest: str) -> Iterator[None]:
        """One process at a time per digest; the lock goes with the process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f".lock-{digest[:16]}").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def file_digest(path: Path) -> str:
    """sha256 of the content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    return [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]


def _write(folder: Path, fingerprint: Fingerprint, made: Tokenised) -> None:
    for name in _ARRAYS:
        np.save(folder / f"{name}.npy", getattr(made.store, name), allow_pickle=False)
    (folder / "notes.jsonl").write_text(notes_to_lines(made.notes), encoding="utf-8")
    sizes = {path.name: {"size": path.stat().st_size, "sha256": file_digest(path)} for path in sorted(folder.iterdir())}
    manifest = {"version": _VERSION, "subject": fingerprint.subject, "components": dict(fingerprint.components),
                "rows": made.rows, "origin_files": made.store.files, "files": sizes}
    for name in sizes:
        sync_file(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
    sync_file(folder / "manifest.json")
    sync_directory(folder)


def _read_manifest(entry: Path) -> dict[str, Any] | None:
    """The manifest of an entry, or None if it cannot be trusted to be one."""
    try:
        manifest = json.loads((entry / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    keys = {"version", "subject", "components", "rows", "origin_files", "files"}
    complete = isinstance(manifest, dict) and keys <= manifest.keys() and manifest["version"] == _VERSION
    return manifest if complete else None


def _damage(entry: Path, manifest: Mapping[str, Any]) -> str | None:
    for name, wanted in manifest["files"].items():
        path = entry / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != wanted["size"]:
            return f"{name} has {path.stat().st_size} bytes, {wanted['size']} wanted"
        if file_digest(path) != wanted["sha256"]:
            return f"{name} does not match its checksum"
    return None


def _load(entry: Path, manifest: Mapping[str, Any], files: Sequence[str]) -> Tokenised:
    arrays = {name: np.load(entry / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS}
    names = dict(zip(manifest["origin_files"], files, strict=True))
    notes = notes_from_lines((entry / "notes.jsonl").read_text(encoding="utf-8"))
    renamed = tuple(Note(Origin(names[note.origin.file], note.origin.index, note.origin.line), note.action,
                         note.reason, note.detail)
                    for note in notes)
    return Tokenised(TokenStore(**arrays, files=tuple(files)), manifest["rows"], renamed)

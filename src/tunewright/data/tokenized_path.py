"""Prepared sets in a folder of their own, which the user names: made once, used as they are by every later run.

The folder holds for each set the arrays of its sequences - split, mixed and packed as they were - and what was dropped of its rows. Its
`manifest.json`, written last, says with which tokenizer and settings they were made, and the size and SHA-256 of every file.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from tunewright.data.audit import Audit, SetAudit, notes_from_lines, notes_to_lines
from tunewright.data.cache import damage, file_digest, open_store
from tunewright.data.examples import ExampleSet, StoreBuilder, Tokens
from tunewright.data.shards import Shard, lay_end_to_end, write_shard
from tunewright.data.spread import Spread
from tunewright.data.token_folder import MANIFEST
from tunewright.durable import make_directory, sync_directory, sync_file
from tunewright.errors import InputError, StorageError, require

_VERSION: Final = 1
_TRAIN: Final = "train"
_ROWS_PER_SHARD: Final = 5000


@dataclass(frozen=True, slots=True)
class Made:
    """What prepared sets were made with: tokens of the vocabulary, digest of the tokenizer, stage, whether training rows are packed, and
    the settings that are read only while they are made."""

    vocabulary: int
    tokenizer: str
    stage: str
    packing: bool
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stored:
    """Prepared sets: that for training, if there is one, those for evaluation by name, and the audit of their rows."""

    train: ExampleSet | None
    evaluation: Mapping[str, ExampleSet]
    audit: Audit


@contextlib.contextmanager
def alone(path: Path, report: Callable[[str], None]) -> Iterator[None]:
    """One process at a time makes the folder."""
    try:
        make_directory(path.parent)
        file = (path.parent / f".{path.name}.lock").open("w")
    except OSError as error:
        raise _unwritable(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"tokenized_path: waiting for another run that writes {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def load(path: Path, made: Made, report: Callable[[str], None]) -> Stored:
    """The sets that the folder holds, for a run that did not make them. Raises `InputError` if they were made for another tokenizer or
    stage, or are damaged."""
    manifest = _manifest(path)
    _check(path, manifest, made)
    broken = damage(path, manifest)
    require(broken is None, f"tokenized_path: {broken}", where=str(path), mend="delete the folder to have it made again")
    old = manifest["settings"]
    try:
        found = opened(path)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OSError) as error:
        raise InputError("tokenized_path: the folder was not written by tunewright", where=str(path),
                         mend="delete it to have it made again, or name another") from error
    report(f"tokenized_path: the tokens in {path} are used as they are; files of rows are not read")
    differing = [f"{name} ({_shown(value)}, made with {_shown(old.get(name))})" for name, value in made.settings.items()
                 if value != old.get(name)]
    if differing:
        report(f"tokenized_path: settings of this run that are not read: {', '.join(differing)}")
    return found


def opened(path: Path) -> Stored:
    """The sets that the folder holds, which are known to be whole and to fit."""
    manifest = _manifest(path)
    sets = {name: _examples(path / folder, tuple(manifest["origin_files"][name])) for name, folder in manifest["sets"].items()}
    audits = tuple(_audit(path, one) for one in manifest["audits"])
    return Stored(sets.get(_TRAIN), {name: examples for name, examples in sets.items() if name != _TRAIN}, Audit(audits))


def save(path: Path, stored: Stored, made: Made) -> None:
    """Write the sets; the folder is complete or absent. Raises `StorageError` where it cannot be written."""
    building = path.parent / f".{path.name}.building"
    try:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        _write(building, stored, made)
        building.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write(folder: Path, stored: Stored, made: Made) -> None:
    sets = {**({} if stored.train is None else {_TRAIN: stored.train}), **stored.evaluation}
    names = {name: f"set-{number}" for number, name in enumerate(sets)}
    files = {name: _write_set(folder / names[name], examples) for name, examples in sets.items()}
    audits = []
    for number, audit in enumerate(stored.audit.sets):
        (folder / f"notes-{number}.jsonl").write_text(notes_to_lines(audit.notes), encoding="utf-8")
        audits.append({"name": audit.name, "rows": audit.rows, "notes": f"notes-{number}.jsonl",
                       **{name: found.to_json() for name, found in (("lengths", audit.lengths), ("trained", audit.trained)) if found}})
    written = sorted(path for path in folder.rglob("*") if path.is_file())
    for one in written:
        sync_file(one)
    manifest = {
        "version": _VERSION, "vocabulary": made.vocabulary, "tokenizer": made.tokenizer, "stage": made.stage, "packing": made.packing,
        "settings": dict(made.settings), "sets": names, "origin_files": files, "audits": audits,
        "files": {str(one.relative_to(folder)): {"size": one.stat().st_size, "sha256": file_digest(one)} for one in written}}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
    sync_file(folder / MANIFEST)
    sync_directory(folder)


def _write_set(folder: Path, examples: ExampleSet) -> list[str]:
    """The parts of all sequences end to end, and where each sequence begins among them. Returns the files that rows came from."""
    folder.mkdir()
    files = list(dict.fromkeys(file for store in examples.stores for file in store.files))
    shards: list[tuple[Path, Shard]] = []
    for begin in range(0, len(examples), _ROWS_PER_SHARD):
        builder = StoreBuilder(files)
        for index in range(begin, min(begin + _ROWS_PER_SHARD, len(examples))):
            example = examples[index]
            for number, origin in enumerate(examples.origins(index)):
                part = slice(example.bounds[number], example.bounds[number + 1])
                builder.add(Tokens(example.input_ids[part], example.labels[part], example.mark), origin)
        path = folder / f"{begin}.shard"
        shards.append((path, write_shard(path, builder.build(), (), 0)))
    lay_end_to_end(shards, folder)
    for path, _ in shards:
        path.unlink()
    (folder / "notes.jsonl").unlink()
    np.save(folder / "bounds.npy", examples.bounds, allow_pickle=False)
    return files


def _examples(folder: Path, files: tuple[str, ...]) -> ExampleSet:
    store = open_store(folder, files)
    bounds = np.load(folder / "bounds.npy", allow_pickle=False)
    members = np.stack([np.zeros(len(store), np.int64), np.arange(len(store), dtype=np.int64)], axis=1)
    return ExampleSet((store,), members, bounds, np.diff(np.asarray(store.offsets)[bounds]))


def _audit(path: Path, fields: Mapping[str, Any]) -> SetAudit:
    lengths, trained = (Spread(**fields[name]) if name in fields else None for name in ("lengths", "trained"))
    notes = notes_from_lines((path / fields["notes"]).read_text(encoding="utf-8"))
    return SetAudit(fields["name"], fields["rows"], notes, lengths, trained)


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("tokenized_path: its manifest cannot be read", where=str(path / MANIFEST),
                         mend="delete the folder to have it made again") from error
    keys = {"version", "vocabulary", "tokenizer", "stage", "packing", "settings", "sets", "origin_files", "audits", "files"}
    if not isinstance(manifest, dict) or not keys <= manifest.keys() or manifest["version"] != _VERSION or (
            not isinstance(manifest["settings"], dict)):
        raise InputError("tokenized_path: the folder was not written by this version of tunewright", where=str(path),
                         mend="delete it to have it made again, or name another")
    return manifest


def _check(path: Path, manifest: Mapping[str, Any], made: Made) -> None:
    """Refuse tokens that mean something else to this run."""
    again = "name another folder, or delete this one to have it made again"
    if manifest["tokenizer"] != made.tokenizer:
        raise InputError(f"tokenized_path: made with another tokenizer, of {manifest['vocabulary']} tokens; that of this run has "
                         f"{made.vocabulary}", where=str(path), mend=again)
    if manifest["stage"] != made.stage:
        raise InputError(f"tokenized_path: made for stage {manifest['stage']}, but stage is {made.stage}", where=str(path), mend=again)
    if manifest["packing"] != made.packing:
        raise InputError(f"tokenized_path: made with packing: {json.dumps(manifest['packing'])}", where=str(path),
                         mend=f"set packing: {json.dumps(manifest['packing'])}, or name another folder")


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"tokenized_path cannot be written: {error.strerror or error}", where=str(path),
                        mend="make room, or name a folder that can be written")

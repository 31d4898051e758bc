"""Shards: the tokens of some rows of a data set in one file, complete or absent, and shards laid end to end.

A shard is one line of JSON - counts, and the SHA-256 of what follows - and behind it input_ids and labels [tokens] int32, lengths
[sequences] int64, origins [sequences, 3] int64, marks [sequences] int8 and the notes as JSON lines. It is written under another name,
forced to the disk and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from tunewright.data.audit import Note, notes_to_lines
from tunewright.data.examples import TokenStore
from tunewright.errors import InputError, StorageError

_VERSION: Final = 2
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Shard:
    """What a shard holds: `rows` read of the data set, `sequences` made of them, how many of these are `marked`, their `tokens`, bytes of
    `notes`; `columns` are those of the wanted columns that some row had."""

    rows: int
    sequences: int
    tokens: int
    notes: int
    marked: int
    columns: tuple[str, ...]

    def sizes(self) -> dict[str, int]:
        """Bytes of each part, in order."""
        return {"input_ids": 4 * self.tokens, "labels": 4 * self.tokens, "lengths": 8 * self.sequences, "origins": 24 * self.sequences,
                "marks": self.sequences, "notes": self.notes}


def write_shard(path: Path, store: TokenStore, notes: Sequence[Note], rows: int, columns: Sequence[str] = ()) -> Shard:
    """Write the shard. Raises `StorageError` where it cannot be written."""
    lines = notes_to_lines(notes).encode()
    parts = [np.ascontiguousarray(array).tobytes() for array in (store.input_ids, store.labels, np.diff(store.offsets), store.origins,
                                                                store.marks)]
    shard = Shard(rows, len(store), len(store.input_ids), len(lines), int(np.count_nonzero(store.marks)), tuple(columns))
    digest = hashlib.sha256()
    for part in (*parts, lines):
        digest.update(part)
    head = json.dumps({"version": _VERSION, **asdict(shard), "sha256": digest.hexdigest()}).encode() + b"\n"
    fresh = path.with_name(f".{path.name}.new")
    try:
        with fresh.open("wb") as file:
            file.writelines((head, *parts, lines))
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise unwritable(path.parent, error) from error
    return shard


def read_shard(path: Path) -> Shard | None:
    """What the shard holds, or None if it is not there, or damaged."""
    try:
        with path.open("rb") as file:
            head = json.loads(file.readline())
            shard = _shard(head)
            digest = hashlib.sha256()
            while block := file.read(_BLOCK):
                digest.update(block)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return shard if head["version"] == _VERSION and digest.hexdigest() == head["sha256"] else None


def unwritable(folder: Path, error: OSError) -> StorageError:
    """The error for tokens that cannot be written."""
    return StorageError(f"the tokens cannot be written: {error.strerror or error}", where=str(folder),
                        mend="make room, or set data_cache_dir to a folder with more, and run the same command again to go on")


def lay_end_to_end(shards: Sequence[tuple[Path, Shard]], folder: Path) -> dict[str, dict[str, Any]]:
    """The shards as `input_ids.npy`, `labels.npy`, `offsets.npy`, `origins.npy` and `notes.jsonl` in `folder`, with `marks.npy` if there is
    any: name -> size and SHA-256."""
    tokens = sum(shard.tokens for _, shard in shards)
    sequences = sum(shard.sequences for _, shard in shards)
    shapes: dict[str, tuple[Any, tuple[int, ...], str]] = {
        "input_ids": (np.int32, (tokens,), "input_ids"), "labels": (np.int32, (tokens,), "labels"),
        "offsets": (np.int64, (sequences + 1,), "lengths"), "origins": (np.int64, (sequences, 3), "origins")}
    if any(shard.marked for _, shard in shards):
        shapes["marks"] = (np.int8, (sequences,), "marks")
    written = {}
    for name, (kind, shape, part) in shapes.items():
        blocks = _offsets(shards) if name == "offsets" else _blocks(shards, part)
        written[f"{name}.npy"] = _write(folder / f"{name}.npy", blocks, _numpy_head(kind, shape))
    written["notes.jsonl"] = _write(folder / "notes.jsonl", _blocks(shards, "notes"), b"")
    return written


def _shard(head: dict[str, Any]) -> Shard:
    return Shard(head["rows"], head["sequences"], head["tokens"], head["notes"], head["marked"], tuple(head["columns"]))


def _blocks(shards: Sequence[tuple[Path, Shard]], part: str) -> Iterator[bytes]:
    """The bytes of one part of every shard."""
    for path, shard in shards:
        sizes = shard.sizes()
        with path.open("rb") as file:
            file.readline()
            for name, size in sizes.items():
                if name == part:
                    break
                file.seek(size, os.SEEK_CUR)
            yield from _read(file, sizes[part], path)


def _read(file: IO[bytes], size: int, path: Path) -> Iterator[bytes]:
    while size:
        block = file.read(min(size, _BLOCK))
        if not block:
            raise InputError("a shard of the token cache became shorter while it was read", where=str(path), mend="run the command again")
        size -= len(block)
        yield block


def _offsets(shards: Sequence[tuple[Path, Shard]]) -> Iterator[bytes]:
    """Where each sequence begins, from the lengths, and where the last one ends."""
    yield np.zeros(1, np.int64).tobytes()
    end = 0
    for one in shards:
        lengths = np.frombuffer(b"".join(_blocks([one], "lengths")), np.int64)
        if len(lengths):
            ends = end + np.cumsum(lengths)
            end = int(ends[-1])
            yield ends.tobytes()


def _numpy_head(kind: Any, shape: tuple[int, ...]) -> bytes:
    """What stands before the numbers in a `.npy` file."""
    from io import BytesIO

    head = BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": np.dtype(kind).str, "fortran_order": False, "shape": shape})
    return head.getvalue()


def _write(path: Path, blocks: Iterator[bytes], head: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(head)
    size = len(head)
    with path.open("wb") as file:
        file.write(head)
        for block in blocks:
            file.write(block)
            digest.update(block)
            size += len(block)
        file.flush()
        os.fsync(file.fileno())
    return {"size": size, "sha256": digest.hexdigest()}

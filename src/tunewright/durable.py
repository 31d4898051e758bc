"""Files that survive a kill and a loss of power: fsync, atomic replacement, and errors that name path, need and free space."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tunewright.errors import StorageError

_BLOCK = 1 << 20
SMALL: Final = 1_000_000
"""Bytes that records, logs, results and curves take together, generously."""


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` to `path` in one piece: a reader sees the old file or the new one, never half of it."""
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Make a directory and those above it; the entries of new ones are forced to the disk."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for one in missing:
        with contextlib.suppress(PermissionError):  # a directory that may be entered but not read cannot be synced
            sync_directory(one.parent)


def sync_file(path: Path) -> None:
    """Force the file's bytes to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Force the directory's entries to the disk; file systems that cannot sync a directory say EINVAL and are let off."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def size_of(directory: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def demand_space(directory: Path, need: int) -> None:
    """Raise StorageError unless the file system of `directory` has `need` bytes free."""
    free = shutil.disk_usage(directory).free
    if free < need:
        raise StorageError(f"not enough space for a checkpoint: {_mb(need)} needed, {_mb(free)} free", where=str(directory),
                           mend="make room and run the same command again to go on")


@contextlib.contextmanager
def storage_errors(directory: Path, need: int) -> Iterator[None]:
    """Turn a failed write of any library into StorageError with path, need and free space.

    Python raises OSError; safetensors and tokenizers, written in Rust, raise classes of their own (the latter plain Exception)
    whose text ends in the system's error number.
    """
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        raise _refused(error.strerror or str(error), error.filename or directory, directory, need) from error
    except SafetensorError as error:
        raise _refused(str(error), directory, directory, need) from error
    except Exception as error:
        if type(error) is not Exception or "os error" not in str(error):
            raise
        raise _refused(str(error), directory, directory, need) from error


def _refused(reason: str, where: str | Path, directory: Path, need: int) -> StorageError:
    return StorageError(f"cannot write ({reason}): {_mb(need)} needed, {_free(directory)} free", where=str(where),
                        mend="make room and run the same command again to go on")


def _free(directory: Path) -> str:
    try:
        return _mb(shutil.disk_usage(directory).free)
    except OSError:
        return "unknown"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"

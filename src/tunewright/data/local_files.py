"""Names of data sets -> data files on this machine. Standard library only."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tunewright.data.dataset_info import FILE_NAME
from tunewright.data.files import FAMILY, KINDS, DataFile, kind_of
from tunewright.data.quirks import STRICT, Quirks
from tunewright.data.text_files import refuse_compressed
from tunewright.errors import InputError

MEGATRON_MEND: Final = "set data_manager_type: mg and stage: pt"
_MEGATRON: Final = b"MMIDIDX"
"""What an index of Megatron's begins with."""


@dataclass(frozen=True, slots=True)
class Found:
    """The files that a name stands for, and what beside them was left alone."""

    paths: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def existing(name: str, folders: tuple[Path, ...], quirks: Quirks = STRICT) -> Found | None:
    """The files that `name` stands for in the first of `folders` that has any."""
    for folder in folders:
        path = folder / os.path.expanduser(name)
        if os.path.isdir(path):
            return _as_listed(path) if "listdir-order" in quirks else _folder_files(path)
        if os.path.exists(path):
            return Found((path,))
        if os.path.islink(path):
            raise InputError(f"a link to {os.readlink(path)}, which leads nowhere", where=str(path), mend="mend the link")
        if glob.has_magic(name):
            found = _matching(path)
            if found:
                return Found(found)
    return None


def called(name: str, folder: Path, key: str) -> Found | None:
    """The one data file of `folder` whose name without its ending is `name`; in the command-line reference data sets are called so."""
    if not folder.is_dir() or "/" in name:
        return None
    found = [path for path in sorted(folder.iterdir()) if path.stem == name and path.suffix.lower() in KINDS and path.is_file()]
    if len(found) > 1:
        raise InputError(f"{key}: `{name}` may be {' or '.join(f'`{path.name}`' for path in found)}", where=str(folder),
                         mend="write the name with its ending")
    return Found(tuple(found)) if found else None


def megatron_prefix(path: Path) -> bool:
    """Whether `path` is what Megatron's .bin and .idx of tokens have in common, or one of the two."""
    prefix = path.with_name(path.name[:-4]) if path.name.endswith((".bin", ".idx")) else path
    index = prefix.with_name(f"{prefix.name}.idx")
    if not os.path.isfile(index) or not os.path.isfile(prefix.with_name(f"{prefix.name}.bin")):
        return False
    with index.open("rb") as file:
        return file.read(len(_MEGATRON)) == _MEGATRON


def data_files(paths: Sequence[Path], where: str) -> tuple[DataFile, ...]:
    """The files with their types, which must go together."""
    files = tuple(DataFile(path, _kind(path)) for path in paths)
    families = {FAMILY.get(file.kind, file.kind): file.path.name for file in files}
    if len(families) > 1:
        names = ", ".join(f"`{name}`" for name in families.values())
        raise misnamed(f"files of different types in one data set: {names}", where, "name the files as data sets of their own")
    return files


def misnamed(what: str, where: str, mend: str) -> InputError:
    """The error at a place in the registry, or about a setting, whose own place is found by its name before the colon."""
    return InputError(f"{where}: {what}", mend=mend) if where in ("dataset", "eval_dataset") else InputError(what, where=where, mend=mend)


def check_sha1(files: tuple[DataFile, ...], wanted: str, where: str) -> None:
    """Refuse a file that is not the one that the registry was written for."""
    if len(files) > 1:
        raise misnamed("file_sha1: a folder has several files", where, "take file_sha1 out")
    with files[0].path.open("rb") as file:
        found = hashlib.file_digest(file, "sha1").hexdigest()
    if found != wanted.lower():
        raise misnamed(f"file_sha1: {files[0].path} has {found[:12]}..., not {wanted[:12]}...", where,
                       "fetch the file again, or take file_sha1 out")


def _matching(pattern: Path) -> tuple[Path, ...]:
    """The files that match, sorted; a file that several links lead to is there once."""
    once: dict[str, Path] = {}
    for match in sorted(glob.glob(str(pattern), recursive=True)):
        if Path(match).is_file():
            once.setdefault(os.path.realpath(match), Path(match))
    return tuple(once.values())


def _folder_files(folder: Path) -> Found:
    """Data files directly inside, sorted. Hidden files and the registry are left alone, and so are sub-folders and other kinds, which are
    told."""
    inside = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and path.name != FILE_NAME]
    found = tuple(path for path in inside if path.is_file() and kind_of(path) is not None)
    below = [path.name for path in inside if path.is_dir()]
    if not found:
        mend = f"name those of its sub-folders: {folder}/**/*" if below else f"types: {', '.join(KINDS)}"
        raise InputError("the folder holds no data files", where=str(folder), mend=mend)
    others = [path.name for path in inside if path.is_file() and path not in found]
    return Found(found, (*_told("sub-folders not read", below), *_told("files not read", others)))


def _told(what: str, names: list[str]) -> tuple[str, ...]:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (f"{what}: {', '.join(names[:3])}{more}",) if names else ()


def _as_listed(folder: Path) -> Found:
    """Everything inside in the file system's order, as LLaMA-Factory takes it; what is no data file is then an error."""
    paths = tuple(folder / name for name in os.listdir(folder))
    if not paths:
        raise InputError("the folder holds no data files", where=str(folder), mend=f"types: {', '.join(KINDS)}")
    return Found(paths)


def _kind(path: Path) -> str:
    kind = kind_of(path)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "not a regular file"
        raise InputError(f"is {what}", where=str(path), mend="name a file of rows")
    refuse_compressed(path)
    if kind is None and megatron_prefix(path):
        raise InputError("a file of Megatron's tokens, not of rows", where=str(path), mend=MEGATRON_MEND)
    if kind is None:
        raise InputError(f"unknown type `{path.suffix or path.name}`", where=str(path),
                         mend=f"types: {', '.join(KINDS)}")
    return kind

"""Data sets as the user names them -> files and rows. Standard library only.

A name is looked up in `dataset_info.json` first, then as a file, folder or pattern, from the working directory and then from
`dataset_dir`, there also without its ending, and a table from the sub-folder `csv`. Files of a folder are read in sorted order,
whatever the file system says.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from tunewright.data.dataset_info import FILE_NAME, Entry, nearest, read_entry, read_registry
from tunewright.data.files import FAMILY, KINDS, DataFile, read_head, read_rows
from tunewright.data.formats import csv_table
from tunewright.data.formats.convert import convert as convert_row
from tunewright.data.formats.convert import detect
from tunewright.data.formats.fields import Outcome
from tunewright.data.formats.layout import OPTIONAL_COLUMNS, Layout, named_columns
from tunewright.data.formats.layout import layout as make_layout
from tunewright.data.json_rows import Row
from tunewright.data.records import Origin
from tunewright.data.text_files import refuse_compressed
from tunewright.errors import InputError


@dataclass(frozen=True, slots=True)
class Source:
    """A data set whose files are known. `name` is how the user called it; `layout` is None until a row has been seen."""

    name: str
    files: tuple[DataFile, ...]
    layout: Layout | None
    num_samples: int | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """A data set that can be read: `line` says how its rows are understood."""

    source: Source
    layout: Layout
    line: str


def locate(spec: str | Mapping[str, Any], dataset_dir: Path, *, key: str = "dataset") -> Source:
    """The files of one entry of `dataset` or `eval_dataset`; `key` is named in errors."""
    if isinstance(spec, Mapping):
        entry = read_entry(spec, key, formatting=None)
        return _source(entry.file_name, entry, _existing(entry.file_name, (dataset_dir, Path())), key)
    registry = read_registry(dataset_dir)
    if spec in registry:
        entry = read_entry(registry[spec], f"{dataset_dir / FILE_NAME} `{spec}`", formatting="alpaca")
        return _source(spec, entry, _existing(entry.file_name, (dataset_dir,)), f"{dataset_dir / FILE_NAME} `{spec}`")
    tables = (dataset_dir / csv_table.FOLDER,) if spec.lower().endswith(".csv") else ()
    found = _existing(spec, (Path(), dataset_dir, *tables)) or _called(spec, dataset_dir, key)
    if found is None:
        raise _unknown(spec, registry, dataset_dir, key)
    return _source(spec, Entry(spec, None, None), found, key)


def converted(source: Source, dataset_dir: Path, report: Callable[[str], None]) -> Source:
    """The source to read: a table of the sft-json document is first converted to JSONL beside it; any other is itself."""
    if len(source.files) > 1 or not csv_table.is_table(source.files[0], dataset_dir):
        return source
    return replace(source, files=(csv_table.jsonl_of(source.files[0], report),))


def named(source: Source, columns: Mapping[str, str]) -> Source:
    """The source with Alpaca's columns named as in `columns`, unless it names its columns, or has another format, itself."""
    own = source.layout
    if own is not None and (own.formatting != "alpaca" or own.given):
        return source
    return replace(source, layout=named_columns(columns) or own)


def settle(source: Source, stage: str) -> Settled:
    """Choose the layout from the declaration, or from the first row; refuse one that the stage cannot train on."""
    first = next(first_rows(source.files[0]), None) or next(read_rows(source.files[0]))
    chosen = _for_stage(source, first, stage)
    _check_first_row(source, chosen, first)
    read = {name for name in chosen.columns.values()}
    unread = [name for name in first.values if name not in read]
    how = "as declared" if source.layout is not None else "detected from the first row"
    line = f"{source.name}: {chosen.described()}, {how}"
    return Settled(source, chosen, f"{line}; columns not read: {', '.join(unread)}" if unread else line)


def rows(source: Source) -> Iterator[Row]:
    """Every row of every file, in order."""
    for file in source.files:
        yield from read_rows(file)


def outcomes(settled: Settled) -> Iterator[tuple[Origin, Outcome]]:
    """Every row as a record or the reason why not. At the end refuses a declared column that no row had."""
    wanted = {key: settled.layout.columns[key] for key in settled.layout.given if key in OPTIONAL_COLUMNS}
    for row in rows(settled.source):
        wanted = {key: name for key, name in wanted.items() if name not in row.values} if wanted else wanted
        last = row
        yield row.origin, convert_row(row, settled.layout)
    for key, name in wanted.items():
        raise _absent_column(settled.source.name, key, name, last)


def first_rows(file: DataFile, size: int = 1 << 20) -> Iterator[Row]:
    """Rows at the beginning of `file`, without reading all of a large one; all types."""
    if file.kind in ("parquet", "arrow"):
        return islice(read_rows(file), 16)
    return read_head(file, size) if file.path.stat().st_size > size else read_rows(file)


def _for_stage(source: Source, first: Row, stage: str) -> Layout:
    if stage == "pt":
        return _document_layout(source, first)
    chosen = source.layout or detect(first.values)
    if chosen is None:
        raise InputError(
            f"no format fits the columns {', '.join(first.values)}", where=str(first.origin),
            mend="say what they are in a mapping: {file_name: ..., formatting: alpaca, columns: {prompt: ..., response: ...}}")
    if chosen.formatting == "text":
        raise InputError("stage sft trains on conversations, but these rows are documents", where=str(first.origin),
                         mend="set stage: pt, or give rows with questions and answers")
    return chosen


def _document_layout(source: Source, first: Row) -> Layout:
    """The layout for pre-training: the column that `columns.prompt` names (LLaMA-Factory's way), or `text`."""
    declared = source.layout
    if declared is not None and declared.formatting not in ("alpaca", "text"):
        raise InputError(f"stage pt trains on documents, but the data set is declared as {declared.formatting}",
                         where=source.name,
                         mend="set stage: sft, or formatting: text")
    column = declared.columns["prompt"] if declared is not None and "prompt" in declared.given else "text"
    if column not in first.values:
        raise InputError(
            f"{column}: missing; columns present: {', '.join(first.values)}", where=str(first.origin),
            mend="name the column of the documents in a mapping: {file_name: ..., formatting: text, columns: {prompt: ...}}")
    return make_layout("text", {"prompt": column})


def _check_first_row(source: Source, chosen: Layout, first: Row) -> None:
    """A required column that the first row lacks is a wrong mapping rather than a wrong row: say what would fit."""
    for key in ("prompt", "response", "messages"):
        name = chosen.columns.get(key)
        if name is None or name in first.values or (chosen.formatting == "table" and "conversation" in first.values):
            continue
        fitting = detect(first.values)
        mend = f"the rows look like formatting: {fitting.formatting}" if fitting else f"set columns.{key} to one of them"
        raise InputError(f"{name} (columns.{key} of {source.name}): missing; columns present: {', '.join(first.values)}",
                         where=str(first.origin), mend=mend)


def _absent_column(name: str, key: str, column: str, last: Row) -> InputError:
    return InputError(f"{name}: no row has the column `{column}` (columns.{key}); columns present: {', '.join(last.values)}",
                      where=last.origin.file, mend=nearest(column, last.values) or f"take columns.{key} out")


def _source(name: str, entry: Entry, paths: list[Path] | None, where: str) -> Source:
    if paths is None:
        raise _misnamed(f"file_name: `{entry.file_name}` does not exist", where, "give the path of a file or folder")
    return Source(name, _data_files(paths, where), entry.layout, entry.num_samples)


def _existing(name: str, folders: tuple[Path, ...]) -> list[Path] | None:
    """The paths that `name` stands for in the first of `folders` that has any."""
    for folder in folders:
        path = folder / Path(name).expanduser()
        if path.is_dir():
            return _folder_files(path)
        if path.exists():
            return [path]
        if glob.has_magic(name):
            found = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file())
            if found:
                return found
    return None


def _called(name: str, folder: Path, key: str) -> list[Path] | None:
    """The one data file of `folder` whose name without its ending is `name`; in the command-line reference data sets are called so."""
    if not folder.is_dir() or "/" in name:
        return None
    found = [path for path in sorted(folder.iterdir()) if path.stem == name and path.suffix.lower() in KINDS and path.is_file()]
    if len(found) > 1:
        raise InputError(f"{key}: `{name}` may be {' or '.join(f'`{path.name}`' for path in found)}", where=str(folder),
                         mend="write the name with its ending")
    return found or None


def _folder_files(folder: Path) -> list[Path]:
    """Data files directly inside, sorted. Hidden files, other kinds and the registry are left alone."""
    found = [path for path in sorted(folder.iterdir())
             if path.is_file() and path.suffix.lower() in KINDS and not path.name.startswith(".") and path.name != FILE_NAME]
    if not found:
        raise InputError("the folder holds no data files", where=str(folder), mend=f"types: {', '.join(KINDS)}")
    return found


def _data_files(paths: list[Path], where: str) -> tuple[DataFile, ...]:
    files = tuple(DataFile(path, _kind(path)) for path in paths)
    families = {FAMILY.get(file.kind, file.kind): file.path.name for file in files}
    if len(families) > 1:
        names = ", ".join(f"`{name}`" for name in families.values())
        raise _misnamed(f"files of different types in one data set: {names}", where, "name the files as data sets of their own")
    return files


def _misnamed(what: str, where: str, mend: str) -> InputError:
    """The error at a place in the registry, or about a setting, whose own place is found by its name before the colon."""
    return InputError(f"{where}: {what}", mend=mend) if where in ("dataset", "eval_dataset") else InputError(what, where=where, mend=mend)


def _kind(path: Path) -> str:
    refuse_compressed(path)
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"unknown type `{path.suffix or path.name}`", where=str(path),
                         mend=f"types: {', '.join(KINDS)}")
    return kind


def _unknown(spec: str, registry: Mapping[str, Any], dataset_dir: Path, key: str) -> InputError:
    folders = [folder for folder in (Path(spec).parent, dataset_dir) if folder.is_dir()]
    beside = [str(path) for folder in folders for path in sorted(folder.iterdir())
              if path.suffix.lower() in KINDS and path.name != FILE_NAME]
    mend = nearest(spec, dict.fromkeys([*registry, *beside, *(Path(path).name for path in beside)]))
    return InputError(f"{key}: `{spec}` is not a name in {dataset_dir / FILE_NAME}, a file or a folder",
                      mend=mend or None)


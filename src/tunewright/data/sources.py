"""Data sets as the user names them -> files and rows. Standard library only.

A name is looked up in `dataset_info.json` first, then as a path in the cloud, then as a file, folder or pattern, from the working
directory and then from `dataset_dir`, there also without its ending, and a table from the sub-folder `csv`; last as a data set of a hub.
Files of a folder are read in sorted order, whatever the file system says; sub-folders are named by a pattern.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from tunewright.config.data import DataConfig
from tunewright.data.dataset_info import SLICE_MEND, Entry, nearest, read_entry, sliced
from tunewright.data.files import KINDS, DataFile, kind_of, read_head, read_rows
from tunewright.data.formats import csv_table
from tunewright.data.formats.convert import convert as convert_row
from tunewright.data.formats.detect import detect
from tunewright.data.formats.fields import Outcome
from tunewright.data.formats.layout import OPTIONAL_COLUMNS, Layout, named_columns
from tunewright.data.json_rows import Row
from tunewright.data.local_files import MEGATRON_MEND, called, check_sha1, data_files, existing, megatron_prefix, misnamed
from tunewright.data.place import CLOUD, HUB, Place, hub_place, is_cloud, without_count
from tunewright.data.quirks import STRICT, Quirks, chosen
from tunewright.data.records import Origin
from tunewright.data.registry import Registry, open_registry
from tunewright.data.stage_layout import line_of, stage_layout, with_told
from tunewright.errors import InputError

_WEIGHT: Final = re.compile(r"[0-9]*\.?[0-9]+")

_HEAD_ROWS: Final = 16
"""Rows that are looked at to say what of them is not read."""


@dataclass(frozen=True, slots=True)
class Source:
    """A data set. `name` is how the user called it; `layout` is None until a row has been seen.

    `place` is where its files must be fetched from before they are known; `notes` are what its line says beside its layout.
    """

    name: str
    files: tuple[DataFile, ...]
    layout: Layout | None
    num_samples: int | None = None
    place: Place | None = None
    quirks: Quirks = STRICT
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settled:
    """A data set that can be read: `line` says how its rows are understood."""

    source: Source
    layout: Layout
    line: str


def locate(spec: str | Mapping[str, Any], dataset_dir: Path | str | Mapping[str, Any], *, key: str = "dataset",
           quirks: Quirks = STRICT) -> Source:
    """The files of one entry of `dataset` or `eval_dataset`, or the place to fetch them from; `key` is named in errors.

    `dataset_dir` is a folder, a mapping in place of its registry, or one of LLaMA-Factory's words for hubs (see `open_registry`).
    """
    registry = open_registry(dataset_dir, key)
    if isinstance(spec, Mapping):
        return _described(read_entry(spec, key, formatting=None, quirks=quirks), str(spec.get("file_name") or ""), key,
                          (registry.folder, Path()), quirks)
    name, count = without_count(spec)
    found = _registered(spec, registry, quirks) or _local(spec, registry, key, quirks)
    if found is not None:
        return found
    if count is not None:
        found = _registered(name, registry, quirks) or _local(name, registry, key, quirks)
    found = found or _elsewhere(name, registry, quirks)
    if found is None:
        raise _unknown(spec, registry, key)
    return found if count is None else replace(found, num_samples=count)


def fetched(source: Source, key: str = "dataset") -> Source:
    """The source with its files on this machine; one that lies here is itself."""
    if source.place is None:
        return source
    from tunewright.data.remote import fetch

    paths = fetch(source.place, key)
    return replace(source, files=data_files(paths, key), place=None)


def source_of(spec: str | Mapping[str, Any], data: DataConfig, key: str, report: Callable[[str], None]) -> Source:
    """The data set as a run reads it: fetched if it lies elsewhere, converted if it is a table of the sft-json document, its columns
    named."""
    found = locate(spec, data.dataset_dir, key=key, quirks=chosen(data.data_compat))
    if found.place is not None:
        place, found = found.place, fetched(found, key)
        report(f"{found.name}: {len(found.files)} files from {place}, in {found.files[0].path.parent}")
    return named(converted(found, Path(str(data.dataset_dir)), report), data.columns())


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
    head = _head(source.files[0])
    detected = None if source.layout is not None else next((row for row in head if detect(row.values, stage) is not None), head[0])
    found = replace(stage_layout(source.layout, detected or head[0], stage, source.name), quirks=source.quirks)
    chosen = with_told(found, head, is_declared=detected is None)
    line = line_of(source.name, chosen, head, detected=detected)
    return Settled(source, chosen, "; ".join((line, *source.notes)))


def _head(file: DataFile) -> list[Row]:
    """The first rows, up to one that cannot be read, which is told when it is read in its turn."""
    found: list[Row] = []
    try:
        found.extend(islice(first_rows(file), _HEAD_ROWS))  # what came before an error stays
    except InputError:
        if not found:
            raise
    return found or [next(read_rows(file))]


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


def refuse_absent(settled: Settled, present: Collection[str]) -> None:
    """Refuse a declared column that no row had; `present` are the columns that some row had."""
    for key, name in settled.layout.columns.items():
        if key in settled.layout.given and key in OPTIONAL_COLUMNS and name not in present:
            raise _absent_column(settled.source.name, key, name, deque(rows(settled.source), maxlen=1)[0])


def first_rows(file: DataFile, size: int = 1 << 20) -> Iterator[Row]:
    """Rows at the beginning of `file`, without reading all of a large one; all types."""
    if file.kind in ("parquet", "arrow"):
        return islice(read_rows(file), 16)
    return read_head(file, size) if file.path.stat().st_size > size else read_rows(file)


def _described(entry: Entry, name: str, where: str, folders: tuple[Path, ...], quirks: Quirks) -> Source:
    """The source of a description: its files, looked for in `folders`, or its place."""
    unread = (f"keys not read: {', '.join(entry.unread)}",) if entry.unread else ()
    if entry.place is not None:
        return Source(name or str(entry.place), (), entry.layout, entry.num_samples, entry.place, quirks, unread)
    found = existing(entry.file_name, folders, quirks)
    if found is None:
        raise misnamed(f"file_name: `{entry.file_name}` does not exist", where, "give the path of a file or folder")
    files = data_files(found.paths, where)
    if entry.sha1 is not None:
        check_sha1(files, entry.sha1, where)
    return Source(name, files, entry.layout, entry.num_samples, None, quirks, (*unread, *found.notes))


def _registered(spec: str, registry: Registry, quirks: Quirks) -> Source | None:
    if spec not in registry.entries:
        return None
    where = f"{registry.shown} `{spec}`"
    entry = read_entry(registry.entries[spec], where, formatting="alpaca", quirks=quirks)
    if registry.repository is not None and entry.place is None:
        entry = replace(entry, place=Place(HUB, registry.repository, folder=str(Path(entry.file_name).parent)))
    return _described(entry, spec, where, (registry.folder,), quirks)


def _local(spec: str, registry: Registry, key: str, quirks: Quirks) -> Source | None:
    """The files of this machine that a name which is not registered stands for."""
    if registry.is_online or is_cloud(spec):
        return None
    tables = (registry.folder / csv_table.FOLDER,) if spec.lower().endswith(".csv") else ()
    found = existing(spec, (Path(), registry.folder, *tables), quirks) or called(spec, registry.folder, key)
    return None if found is None else Source(spec, data_files(found.paths, key), None, None, None, quirks, found.notes)


def _elsewhere(spec: str, registry: Registry, quirks: Quirks) -> Source | None:
    """The path in the cloud or the data set of a hub that a name may stand for; one that looks like a path of this machine is neither."""
    place = Place(CLOUD, spec) if is_cloud(spec) else hub_place(spec, any_name=registry.is_online)
    looks_local = not registry.is_online and (kind_of(spec) is not None or Path(spec).parent.is_dir())
    if place is None or (place.kind == HUB and "::" not in spec and "://" not in spec and looks_local):
        return None
    return Source(spec, (), None, None, place, quirks)


def _absent_column(name: str, key: str, column: str, last: Row) -> InputError:
    return InputError(f"{name}: no row has the column `{column}` (columns.{key}); columns present: {', '.join(last.values)}",
                      where=last.origin.file, mend=nearest(column, last.values) or f"take columns.{key} out")


def _unknown(spec: str, registry: Registry, key: str) -> InputError:
    folders = [folder for folder in (Path(spec).parent, registry.folder) if folder.is_dir()]
    if any(megatron_prefix(folder / os.path.expanduser(spec)) for folder in (Path(), registry.folder)):
        return InputError(f"{key}: `{spec}` is the prefix of Megatron's files of tokens, not of rows", mend=MEGATRON_MEND)
    if sliced(spec):
        return InputError(f"{key}: `{spec}` ends in a slice, which is not taken", mend=SLICE_MEND)
    if _WEIGHT.fullmatch(spec):
        return InputError(f"{key}: `{spec}` is a number: only sets of Megatron's files are weighed there",
                          mend="set data_manager_type: mg, or for rows mix_strategy: interleave_over and interleave_probs")
    beside = [str(path) for folder in folders for path in sorted(folder.iterdir())
              if path.suffix.lower() in KINDS and path.name != Path(registry.shown).name]
    mend = nearest(spec, dict.fromkeys([*registry.entries, *beside, *(Path(path).name for path in beside)]))
    if registry.is_online:
        return InputError(f"{key}: `{spec}` is not the name of a data set on a hub", mend="write owner/name")
    return InputError(f"{key}: `{spec}` is not a name in {registry.shown}, a file or a folder",
                      mend=mend or None)

"""`dataset_info.json`, the registry of data sets, in LLaMA-Factory's form. Standard library only.

Unknown keys are errors here: LLaMA-Factory ignores them, so that `format` for `formatting` silently reads as Alpaca.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunewright.data.formats.layout import COLUMN_KEYS, FORMATTINGS, TAG_DEFAULTS, Layout, layout
from tunewright.data.json_rows import json_type, parse_strict
from tunewright.data.text_files import decoded_text
from tunewright.errors import InputError

FILE_NAME: Final = "dataset_info.json"

_KEYS = ("file_name", "formatting", "columns", "tags", "split", "num_samples", "folder", "subset", "ranking")
_REMOTE_KEYS = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
_PREFERENCE_COLUMNS = ("chosen", "rejected", "kto_tag")
_MEDIA_COLUMNS = ("images", "videos", "audios")


@dataclass(frozen=True, slots=True)
class Entry:
    """One data set as the registry, or an inline mapping, describes it. `layout` is None where `formatting` is to be detected."""

    file_name: str
    layout: Layout | None
    num_samples: int | None


def read_registry(folder: Path) -> dict[str, Any]:
    """Name -> description, as in `dataset_info.json` of `folder`; empty where there is none."""
    path = folder / FILE_NAME
    if not path.is_file():
        return {}
    found = parse_strict(path, decoded_text(path))
    if not isinstance(found, dict):
        raise InputError(f"an object from names to data sets wanted, found {json_type(found)}", where=str(path))
    return found


def read_entry(given: Any, where: str, *, formatting: str | None) -> Entry:
    """Check one description. `where` names it in errors; `formatting` is what an absent key means, None to detect it."""
    entry = _object(given, where)
    _refuse_unknown(entry, _KEYS, where)
    _refuse_unsupported(entry, where)
    file_name = _string(entry, "file_name", where)
    if not file_name:
        raise InputError("file_name is missing", where=where, mend="name the file or folder that holds the rows")
    folder = _string(entry, "folder", where)
    return Entry(f"{folder}/{file_name}" if folder else file_name, _layout(entry, where, formatting),
                 _num_samples(entry, where))


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` with up to three known names like `name`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(f'`{one}`' for one in close)}?" if close else ""


def _layout(entry: Mapping[str, Any], where: str, formatting: str | None) -> Layout | None:
    chosen = _string(entry, "formatting", where) or formatting
    columns = _names(entry, "columns", where)
    tags = _names(entry, "tags", where)
    if chosen is None:
        if columns or tags:
            raise InputError("columns and tags need formatting", where=where,
                             mend=f"set formatting: one of {', '.join(FORMATTINGS)}")
        return None
    if chosen not in FORMATTINGS:
        mend = nearest(chosen, FORMATTINGS) or f"one of {', '.join(FORMATTINGS)}"
        raise InputError(f"formatting: unknown value `{chosen}`", where=where, mend=mend)
    _refuse_columns(columns, chosen, where)
    _refuse_unknown(tags, tuple(TAG_DEFAULTS.get(chosen, {})), f"{where}.tags")
    return layout(chosen, columns, tags)


def _refuse_columns(columns: Mapping[str, str], formatting: str, where: str) -> None:
    for key in columns:
        if key in _PREFERENCE_COLUMNS:
            raise InputError(f"columns.{key}: the stages pt and sft do not read preference data", where=where)
        if key in _MEDIA_COLUMNS:
            raise InputError(f"columns.{key}: images, videos and audio cannot be trained", where=where)
    _refuse_unknown(columns, COLUMN_KEYS[formatting], f"{where}.columns")


def _refuse_unknown(given: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in given:
        if key not in known and key not in _REMOTE_KEYS:
            mend = nearest(key, known) or f"known keys: {', '.join(known) or 'none'}"
            raise InputError(f"unknown key `{key}`", where=where, mend=mend)


def _refuse_unsupported(entry: Mapping[str, Any], where: str) -> None:
    for key in _REMOTE_KEYS:
        if entry.get(key):
            raise InputError(f"{key}: only local files can be read", where=where,
                             mend="download the data and set file_name")
    if entry.get("ranking"):
        raise InputError("ranking: the stages pt and sft do not read preference pairs", where=where)
    if entry.get("split", "train") != "train":
        raise InputError(f"split: a local file has the split `train` only, found {entry['split']!r}", where=where,
                         mend="put the split into a file of its own")
    if entry.get("subset"):
        raise InputError("subset: a local file has no subsets", where=where,
                         mend="put the subset into a file of its own")


def _num_samples(entry: Mapping[str, Any], where: str) -> int | None:
    value = entry.get("num_samples")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"num_samples: a whole number from 1 on wanted, found {json_type(value)}", where=where)
    return value


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"an object wanted, found {json_type(value)}", where=where)
    return value


def _string(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{key}: string wanted, found {json_type(value)}", where=where)
    return value or ""


def _names(entry: Mapping[str, Any], key: str, where: str) -> dict[str, str]:
    """The mapping under `key` without the entries that are null, which mean the default."""
    given = _object(entry.get(key) or {}, f"{where}.{key}")
    return {name: _string(given, name, f"{where}.{key}") for name in given if given[name] is not None}

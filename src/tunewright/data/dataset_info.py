"""`dataset_info.json`, the registry of data sets, in LLaMA-Factory's form. Standard library only.

Unknown keys are errors here: LLaMA-Factory ignores them, so that `format` for `formatting` silently reads as Alpaca. Both that and what
it does with columns and tags that are not named can be had by name (`data_compat`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunewright.data.formats.layout import (
    COLUMN_DEFAULTS,
    COLUMN_KEYS,
    FORMATTINGS,
    MEDIA_COLUMNS,
    TAG_DEFAULTS,
    Layout,
    exact_layout,
    over_defaults,
    ranked,
)
from tunewright.data.json_rows import json_type, parse_strict
from tunewright.data.place import CLOUD, HUB, MODELSCOPE, Place
from tunewright.data.quirks import STRICT, Quirks
from tunewright.data.text_files import decoded_text
from tunewright.errors import InputError

FILE_NAME: Final = "dataset_info.json"

_KEYS = ("file_name", "formatting", "columns", "tags", "split", "num_samples", "folder", "subset", "ranking", "revision", "file_sha1")
_REMOTE_KEYS = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
_THEIRS = ("alpaca", "sharegpt", "openai")
"""Formats of LLaMA-Factory."""

SLICE_MEND: Final = "set max_samples for the first rows or num_samples for some at random, or put those rows into a file of their own"
_SLICE: Final = re.compile(r"\[-?[0-9]*%?:-?[0-9]*%?\]")


@dataclass(frozen=True, slots=True)
class Entry:
    """One data set as the registry, or an inline mapping, describes it.

    `layout` is None where `formatting` is to be detected; `place` is where its rows lie if not in a local file; `sha1` what its file
    must have; `unread` are keys that were let pass.
    """

    file_name: str
    layout: Layout | None
    num_samples: int | None
    place: Place | None = None
    sha1: str | None = None
    unread: tuple[str, ...] = ()


def read_registry(path: Path) -> dict[str, Any]:
    """Name -> description, as in the file `path`; empty where there is none."""
    if not path.is_file():
        return {}
    found = parse_strict(path, decoded_text(path))
    if not isinstance(found, dict):
        raise InputError(f"an object from names to data sets wanted, found {json_type(found)}", where=str(path))
    return found


def read_entry(given: Any, where: str, *, formatting: str | None, quirks: Quirks = STRICT) -> Entry:
    """Check one description. `where` names it in errors; `formatting` is what an absent key means, None to detect it."""
    entry = _object(given, where)
    unknown = tuple(key for key in entry if key not in (*_KEYS, *_REMOTE_KEYS))
    if "unknown-keys-ignored" not in quirks:
        _refuse_unknown(unknown, _KEYS, where)
    layout = _layout(entry, where, formatting, quirks)
    place = _place(entry, where)
    file_name = _string(entry, "file_name", where)
    split = _string(entry, "split", where)
    if sliced(split):
        raise InputError(f"split: `{split}` is a slice, which is not taken", where=where, mend=SLICE_MEND)
    if place is None:
        _refuse_parts_of_files(entry, where)
        if not file_name:
            raise InputError("file_name is missing", where=where, mend="name the file or folder that holds the rows")
    folder = _string(entry, "folder", where)
    return Entry(f"{folder}/{file_name}" if folder and place is None else file_name, layout, _num_samples(entry, where), place,
                 _string(entry, "file_sha1", where) or None, unknown)


def sliced(name: str) -> bool:
    """Whether a split, or the name of a data set, has a slice behind it as the package `datasets` writes them: `train[:10%]`."""
    return bool(_SLICE.search(name))


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` with up to three known names like `name`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(f'`{one}`' for one in close)}?" if close else ""


def _place(entry: Mapping[str, Any], where: str) -> Place | None:
    """Where the rows lie, in LLaMA-Factory's order: hubs before a script before the cloud before a file; None for a local file."""
    hub, modelscope = _string(entry, "hf_hub_url", where), _string(entry, "ms_hub_url", where)
    if hub or modelscope:
        return Place(HUB if hub else MODELSCOPE, hub or modelscope, subset=_string(entry, "subset", where) or None,
                     split=_string(entry, "split", where) or "train", folder=_string(entry, "folder", where) or None,
                     revision=_string(entry, "revision", where) or None)
    if _string(entry, "om_hub_url", where):
        raise InputError("om_hub_url: the Modelers hub cannot be read", where=where, mend="download the data and set file_name")
    if _string(entry, "script_url", where):
        raise InputError("script_url: refused: it would run the code of the script", where=where,
                         mend="run the script yourself, save its rows as JSONL and set file_name")
    name = _string(entry, "cloud_file_name", where)
    return Place(CLOUD, name) if name else None


def _layout(entry: Mapping[str, Any], where: str, formatting: str | None, quirks: Quirks) -> Layout | None:
    chosen = _string(entry, "formatting", where) or formatting
    columns = _names(entry, "columns", where)
    tags = _names(entry, "tags", where)
    ranking = _truth(entry, "ranking", where)
    if chosen is None:
        if columns or tags:
            raise InputError("columns and tags need formatting", where=where,
                             mend=f"set formatting: one of {', '.join(FORMATTINGS)}")
        return None
    if chosen not in FORMATTINGS:
        mend = nearest(chosen, FORMATTINGS) or f"one of {', '.join(FORMATTINGS)}"
        raise InputError(f"formatting: unknown value `{chosen}`", where=where, mend=mend)
    _check_columns(columns, chosen, where, quirks)
    if "unknown-keys-ignored" not in quirks:
        _refuse_unknown(tags, tuple(TAG_DEFAULTS.get(chosen, {})), f"{where}.tags")
    named = {key: name for key, name in columns.items() if key in COLUMN_KEYS[chosen]}
    unset = [key for key in ("columns", "tags") if chosen in _THEIRS and f"{key}-partial-defaults" in quirks]
    defaults = {} if columns and "columns" in unset else COLUMN_DEFAULTS[chosen]
    tag_defaults = {} if tags and "tags" in unset else TAG_DEFAULTS.get(chosen, {})
    found = exact_layout(chosen, over_defaults(defaults, named), {**tag_defaults, **tags}, frozenset(named))
    _refuse_unset(found, where)
    return _with_ranking(found, ranking, where)


def _refuse_unset(found: Layout, where: str) -> None:
    """Refuse a layout of messages without the names that each row is read by; LLaMA-Factory then stops at the first row."""
    needed = {"columns": ("messages",), "tags": ("role_tag", "content_tag")} if "messages" in COLUMN_DEFAULTS[found.formatting] else {}
    for part, keys in needed.items():
        for key in keys:
            if key not in (found.columns if part == "columns" else found.tags):
                raise InputError(f"{part}.{key}: not given, and {part}-partial-defaults unsets it", where=where, mend="name it")


def _with_ranking(found: Layout, ranking: bool | None, where: str) -> Layout:
    if ranking:
        pairs = ranked(found)
        if pairs.kind != "preference":
            raise InputError(f"ranking: {found.formatting} has no pairs of answers", where=where,
                             mend="set formatting to alpaca, sharegpt or openai, or take ranking out")
        return pairs
    if ranking is False and found.kind == "preference":
        raise InputError("ranking: false, but columns names the answers of pairs", where=where, mend="set ranking: true, or take them out")
    return found


def _check_columns(columns: Mapping[str, str], formatting: str, where: str, quirks: Quirks) -> None:
    for key in columns:
        if key in MEDIA_COLUMNS:
            raise InputError(f"columns.{key}: images, videos and audio cannot be trained", where=where)
    if "unknown-keys-ignored" not in quirks:
        _refuse_unknown(columns, COLUMN_KEYS[formatting], f"{where}.columns")


def _refuse_unknown(given: Iterable[str], known: tuple[str, ...], where: str) -> None:
    for key in given:
        if key not in known:
            mend = nearest(key, known) or f"known keys: {', '.join(known) or 'none'}"
            raise InputError(f"unknown key `{key}`", where=where, mend=mend)


def _refuse_parts_of_files(entry: Mapping[str, Any], where: str) -> None:
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


def _truth(entry: Mapping[str, Any], key: str, where: str) -> bool | None:
    value = entry.get(key)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{key}: true or false wanted, found {json_type(value)}", where=where)
    return value


def _names(entry: Mapping[str, Any], key: str, where: str) -> dict[str, str]:
    """The mapping under `key` without the entries that are null, which mean the default."""
    given = _object(entry.get(key) or {}, f"{where}.{key}")
    return {name: _string(given, name, f"{where}.{key}") for name in given if given[name] is not None}

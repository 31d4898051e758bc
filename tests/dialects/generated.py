"""Configurations of every vocabulary, generated from the declarations, for property tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tunewright.config.param import DIALECTS, Alias
from tunewright.config.table import Row, table
from tunewright.dialects.converters import CONVERTERS
from tunewright.dialects.known import get_dialect
from tunewright.dialects.read import examine

VOCABULARIES = ("native", *DIALECTS)

WORDS = st.text("abcxyz_.-/0123456789é中", min_size=1, max_size=12).filter(
    lambda text: text.strip("~").lower() not in ("", "null", "none", "true", "false", "auto", "all"))
KWARGS = st.dictionaries(st.sampled_from(["num_cycles", "power", "min_lr"]), st.integers(1, 9) | st.floats(0.125, 8), min_size=1)


def value_of(row: Row) -> st.SearchStrategy[Any]:
    """Any value that the declaration allows."""
    param = row.param
    low = param.minimum if param.minimum is not None else (param.above if param.above is not None else -1000)
    high = param.maximum if param.maximum is not None else (param.below if param.below is not None else low + 1000)
    numbers = st.floats(low, high, exclude_min=param.above is not None, exclude_max=param.below is not None,
                        allow_subnormal=False)
    lists = st.lists(WORDS.filter(lambda text: text not in (".", "-")), max_size=3).map(tuple)
    found: st.SearchStrategy[Any] = {
        "bool": st.booleans(), "int": st.integers(int(low), int(high)), "float": numbers, "str": WORDS, "names": lists,
        "numbers": st.lists(numbers, max_size=3).map(tuple), "datasets": lists, "mapping": KWARGS}[row.base]
    if param.choices:
        found = st.sampled_from([choice for choice in param.choices if choice != "none" or row.base == "str"])
        found = found.map(lambda one: (one,)) if row.base == "names" else found
    return found | st.none() if row.nullable else found


def named(dialect: str, *, primary: bool) -> list[tuple[Row, Alias]]:
    """Every parameter with a name of the vocabulary: the preferred one only, or each."""
    if dialect == "native":
        return [(row, Alias(row.field)) for row in table().values()]
    return [(row, alias) for row in table().values() for alias in row.param.names.get(dialect, ())[:1 if primary else None]]


def theirs(dialect: str, row: Row, alias: Alias, value: Any) -> Any:
    """The value in the vocabulary's form."""
    convert = get_dialect(dialect).convert.get(alias.name, alias.convert)
    found = CONVERTERS[convert].theirs(value) if convert else value
    return list(found) if isinstance(found, tuple) else found


def settings(dialect: str, *, primary: bool = False) -> st.SearchStrategy[dict[str, Any]]:
    """Any settings of a few parameters in a vocabulary, in its own form; they may contradict one another."""
    pairs = named(dialect, primary=primary)

    def one(pair: tuple[Row, Alias]) -> st.SearchStrategy[tuple[str, Any]]:
        row, alias = pair
        return value_of(row).map(lambda value: (alias.name, theirs(dialect, row, alias, value)))

    return st.lists(st.sampled_from(pairs).flatmap(one), max_size=12).map(dict)


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def settled(path: Path, dialect: str, written: dict[str, Any]) -> dict[str, Any]:
    """As many of the settings, from the first on, as stand together without a problem; the file holds them."""
    kept: dict[str, Any] = {}
    for name, value in written.items():
        write(path, json.dumps({"dialect": dialect, **kept, name: value}))
        if not examine([str(path)]).problems:
            kept[name] = value
    write(path, json.dumps({"dialect": dialect, **kept}))
    return kept

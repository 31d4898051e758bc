"""The words of a command line -> configuration files and written values. Standard library only.

Accepted: `FILE`, `key=value`, `group.key=value`, `--key value`, `--key=value`, `--kebab-key value`, `--group.key value`, a bare
`--switch`, `--switch true|false`, `--no_switch`, `--dialect NAME`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from tunewright.config.refused.table import refusers
from tunewright.config.table import names_in
from tunewright.dialects.converters import SWITCHES
from tunewright.dialects.dialect import Written
from tunewright.dialects.known import READABLE, section_names
from tunewright.dialects.refusals import TOKEN_VARIABLES
from tunewright.errors import UsageError

WHERE = "command line"


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the command line names: files, values in order, and the vocabulary if it is given."""

    files: tuple[str, ...]
    written: tuple[Written, ...]
    dialect: str | None


def parse_arguments(words: Sequence[str]) -> Arguments:
    """Split the command line; raises UsageError for a word that is none of the forms above."""
    files: list[str] = []
    written: list[Written] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("--") and len(word) > 2:
            written.append(_option(word, rest))
        elif word.startswith("-") and word != "-":
            raise UsageError(f"{word} is not an option", where=WHERE, mend="options begin with two dashes: --name value")
        elif "=" in word and _is_key(word.partition("=")[0]):
            key, _, value = word.partition("=")
            written.append(_written(key, value))
        else:
            files.append(word)
    dialects = [one.value for one in written if one.name == "dialect"]
    return Arguments(tuple(files), tuple(one for one in written if one.name != "dialect"), dialects[-1] if dialects else None)


def _is_key(text: str) -> bool:
    return all(part.replace("-", "_").isidentifier() for part in text.split("."))


def refuse_bare_names(files: Sequence[str]) -> None:
    """Raise UsageError for a parameter's name where a file is wanted: `lora_rank 4` or `lora_rank = 4` for `lora_rank=4`."""
    for position, word in enumerate(files):
        if split_name(word)[0] in _known_names() and not os.path.exists(word):
            value = next((one for one in files[position + 1:] if one != "="), "VALUE")
            raise UsageError(f"{word}: a setting without a value", where=WHERE, mend=f"write {word}={value}")


def _known_names() -> frozenset[str]:
    return frozenset(name for dialect in READABLE for name in names_in(dialect))


def _option(word: str, rest: list[str]) -> Written:
    key, sign, value = word.partition("=")
    if split_name(key)[0] in ("config", "config_file", "config_path"):
        file = value or next(iter(rest), "FILE")
        raise UsageError(f"{key}: a configuration is a word of its own, not an option", where=WHERE, mend=f"write {file} without {key}")
    if sign:
        return _written(key, value)
    name = split_name(key)[0]
    if is_switch(name):
        takes = bool(rest) and (rest[0].lower() in ("true", "false", "none", "null", "auto") or _is_token(name, rest[0]))
        return _written(key, rest.pop(0) if takes else True)
    if name.startswith("no_") and is_switch(name[3:]):
        takes = bool(rest) and rest[0].lower() in ("true", "false")
        return _written(key, rest.pop(0) if takes else True)
    if not rest or rest[0].startswith("--"):
        if not _is_known(name):
            return _written(key, True)  # reported with the other unknown names, and what was meant
        raise UsageError(f"{key}: a value is missing", where=WHERE, mend=f"write {key} VALUE")
    return _written(key, rest.pop(0))


def _is_known(name: str) -> bool:
    positive = name.removeprefix("no_")
    return name == "dialect" or bool({name, positive} & _known_names()) or bool(refusers(name) or refusers(positive))


def _is_token(name: str, word: str) -> bool:
    """Whether the word after a switch that other trainers give a secret to is one, and must not be taken for a file and shown."""
    return name in TOKEN_VARIABLES and not word.startswith("-") and "=" not in word and not os.path.exists(word)


def is_switch(name: str) -> bool:
    """Whether some vocabulary has a true-or-false parameter of that name."""
    for dialect in READABLE:
        known = names_in(dialect)
        if name in known:
            row, alias = known[name]
            return alias.convert in SWITCHES or (row.base == "bool" and alias.convert is None)
    return any(inert.name == name and inert.values and isinstance(inert.values[0], bool) for _, _, inert in refusers(name))


def split_name(key: str) -> tuple[str, str | None]:
    """A key without dashes -> its name and the section in front of it: `--training.save-steps` -> (save_steps, training)."""
    group, dot, name = key.lstrip("-").replace("-", "_").rpartition(".")
    return (name, group) if dot and group in section_names() else (f"{group}{dot}{name}", None)


def _written(key: str, value: object) -> Written:
    name, group = split_name(key)
    return Written(key=key, name=name, value=value, where=WHERE, source="command line", group=group)

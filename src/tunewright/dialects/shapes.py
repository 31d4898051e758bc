"""Settings -> the text of a file in the shape of their vocabulary: flat or in sections, YAML or JSON, or a command line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from tunewright.config.literals import show, split_commas
from tunewright.dialects.choose import choose
from tunewright.dialects.document import Document
from tunewright.dialects.known import get_dialect
from tunewright.dialects.read import written_in
from tunewright.dialects.report import Translation


def usual_suffix(target: str) -> str:
    """The ending of files in this vocabulary."""
    return ".json" if target == "sft_json" else ".yaml"


def to_text(translation: Translation, *, suffix: str) -> str:
    """The settings as JSON (.json), as a shell script with one command (.sh), or as YAML."""
    if suffix.lower() == ".sh":
        return script(["tunewright", "train", "--dialect", translation.dialect], words(translation.settings))
    settings = in_shape(translation)
    if suffix.lower() == ".json":
        return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    sections = {one for several in get_dialect(translation.dialect).sections.values() for one in several}
    return "".join(_yaml(key, value, is_section=key in sections) for key, value in settings.items())


def in_shape(translation: Translation) -> dict[str, Any]:
    """The settings below their sections, where the vocabulary has any, headed by `dialect:` where they could be taken for another.

    Other programs refuse a key that they do not know, so it is there only when it is needed, and always in our own files.
    """
    sections = get_dialect(translation.dialect).sections
    found: dict[str, Any] = {}
    below: dict[str, dict[str, Any]] = {several[0]: {} for several in sections.values()}
    for key, value in translation.settings.items():
        if key in sections:
            below[sections[key][0]][key] = value
        else:
            found[key] = value
    found.update({section: inner for section, inner in below.items() if inner})
    needs_name = translation.dialect == "native" or not _is_recognised(found, translation.dialect)
    return {"dialect": translation.dialect, **found} if needs_name else found


def _is_recognised(settings: Mapping[str, Any], dialect: str) -> bool:
    choice = choose(written_in(Document("converted", settings, {})), (), None)
    return choice.dialect.name == dialect and not choice.problems


def words(settings: Mapping[str, Any]) -> list[str]:
    """The settings as words of a command line."""
    return [f"--{key}={_word(value)}" for key, value in settings.items()]


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        texts = [one for one in value if isinstance(one, str)]
        joined = ",".join(texts)
        plain = len(texts) == len(value) > 0 and split_commas(joined) == tuple(texts) and joined[0] not in "[{"
        return joined if plain else json.dumps(value, ensure_ascii=False)
    return show(value)


def script(command: list[str], options: list[str]) -> str:
    """A shell script that runs the command with one option on each line, and with those it is given."""
    lines = [" ".join(map(shlex.quote, command)), *map(shlex.quote, options), '"$@"']
    return "#!/bin/sh\nexec " + " \\\n  ".join(lines) + "\n"


def _yaml(key: str, value: Any, *, is_section: bool) -> str:
    """One line for each setting: lists and mappings in flow style; the settings of a section below it."""
    import yaml

    if is_section:
        inner = "".join(_yaml(name, one, is_section=False) for name, one in value.items())
        return f"{key}:\n  " + inner.rstrip("\n").replace("\n", "\n  ") + "\n"
    style = None if isinstance(value, list | dict) else False
    return str(yaml.safe_dump({key: value}, allow_unicode=True, width=10_000, default_flow_style=style))

"""Where a chat template's jinja text comes from: the tokenizer, the bundled table, or a file. Standard library only."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.errors import InputError, require

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_TEMPLATE_BYTES = 64 * 1024
_FOLDER = "templates"
_FILE_ENDINGS = (".jinja", ".jinja2", ".j2")


@dataclass(frozen=True, slots=True)
class TemplateSource:
    """Jinja text and its name. `stops`: role tokens that end a turn, where the template writes nothing after an answer.

    `bundled` text is our own; other text may be hostile.
    """

    name: str
    text: str
    bundled: bool = False
    stops: tuple[str, ...] = ()


def find_source(template: str, tokenizer: PreTrainedTokenizerBase) -> TemplateSource:
    """The text that `template` names: `auto` is the tokenizer's own, a path is a jinja file, else a bundled name.

    Raises `InputError` if there is none, or if it is larger than 64 kB.
    """
    if template.lower() == "auto":
        return _checked(_of_tokenizer(tokenizer))
    if template.endswith(_FILE_ENDINGS) or "/" in template:
        return _checked(file_source(Path(template).expanduser()))
    return bundled_source(template)


def bundled_names() -> tuple[str, ...]:
    """Names of the bundled templates, without their aliases."""
    return tuple(_table())


def bundled_source(name: str) -> TemplateSource:
    """The bundled template of this name or alias, in any case; an unknown name is refused with the nearest ones."""
    table = _table()
    spoken = {alias: known for known, row in table.items() for alias in (known, *row.get("aliases", ()))}
    known = spoken.get(name.lower())
    if known is None:
        near = difflib.get_close_matches(name.lower(), spoken, n=3, cutoff=0.5)
        raise InputError(f"template: there is no bundled template {name!r}",
                         mend=f"did you mean {' or '.join(near)}? " * bool(near) + f"known: {', '.join(sorted(spoken))}")
    row = table[known]
    text = (files("tunewright.assets") / _FOLDER / row.get("file", f"{known}.jinja")).read_text("utf-8")
    return TemplateSource(known, text, True, tuple(row.get("stops", ())))


def _table() -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = json.loads((files("tunewright.assets") / _FOLDER / "table.json").read_text("utf-8"))
    return table


def _of_tokenizer(tokenizer: PreTrainedTokenizerBase) -> TemplateSource:
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    where = str(tokenizer.name_or_path) or None
    require(bool(own), "the tokenizer has no chat template", where=where,
            mend=f"set `template` to the format the model was trained with: {', '.join(bundled_names())}, or a jinja file")
    return TemplateSource("the tokenizer's chat template", own)


def file_source(path: Path) -> TemplateSource:
    """The text of a jinja file, up to a little more than is allowed. Raises `InputError` if it cannot be read or is not UTF-8."""
    try:
        with path.open("rb") as file:
            return TemplateSource(str(path), file.read(MAX_TEMPLATE_BYTES + 1).decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"the template file cannot be read: {reason}", where=str(path),
                         mend="give the path of a jinja file") from error


def _checked(source: TemplateSource) -> TemplateSource:
    require(len(source.text.encode("utf-8")) <= MAX_TEMPLATE_BYTES,
            f"{source.name} is larger than {MAX_TEMPLATE_BYTES // 1024} kB", mend="use a smaller template")
    return source

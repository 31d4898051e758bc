"""Where a chat template's jinja text comes from: the tokenizer, the bundled table, or a file. Standard library only."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.data.template_table import THINK, Policy, policies, spoken_names, tool_format_text
from tunewright.errors import InputError, require

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_TEMPLATE_BYTES = 64 * 1024
_FILE_ENDINGS = (".jinja", ".jinja2", ".j2")


@dataclass(frozen=True, slots=True)
class TemplateSource:
    """Jinja text and its name. `stops`: role tokens that end a turn, where the template writes nothing after an answer.

    `bundled` text is our own; other text may be hostile. `also_stop` ends generation too; `thought`: the words around thoughts;
    `note`: why the text is not what the name promises, for the user to read.
    """

    name: str
    text: str
    bundled: bool = False
    stops: tuple[str, ...] = ()
    also_stop: tuple[str, ...] = ()
    thought: tuple[str, str] = THINK
    note: str | None = None
    never_thinks: bool = False
    is_open: bool = False


def find_source(template: str, tokenizer: PreTrainedTokenizerBase, tool_format: str | None = None) -> TemplateSource:
    """The text that `template` names: `auto` is the tokenizer's own, a path is a jinja file, else a name of the table.

    With `tool_format` the text is led by jinja that puts tools into words before the template sees them.
    Raises `InputError` if there is none, or if it is larger than 64 kB.
    """
    if template.lower() == "auto":
        found = _checked(_of_tokenizer(tokenizer))
    elif template.endswith(_FILE_ENDINGS) or "/" in template:
        found = _checked(file_source(Path(template).expanduser()))
    else:
        policy = named_policy(template)
        if policy.tokenizer is None:
            return bundled_source(template, tool_format)
        require(bool(tokenizer.chat_template),
                f"template {policy.name} means the tokenizer's own chat template, because {policy.tokenizer}; the tokenizer has none",
                where=str(tokenizer.name_or_path) or None, mend="set template to a jinja file")
        found = replace(_checked(_of_tokenizer(tokenizer)), name=policy.name, thought=policy.thought, also_stop=policy.also_stop,
                        note=f"template {policy.name}: the tokenizer's own chat template is used, because {policy.tokenizer}")
    return found if tool_format is None else replace(found, text=tool_format_text(tool_format) + found.text)


def bundled_names() -> tuple[str, ...]:
    """Names of the templates whose text is ours, without those that share another's text."""
    return tuple(policy.name for policy in policies().values() if policy.tokenizer is None and policy.like is None)


def named_policy(name: str) -> Policy:
    """The row of the table with this name or alias, in any case; an unknown name is refused with the nearest ones."""
    spoken = spoken_names()
    known = spoken.get(name.lower())
    if known is None:
        near = difflib.get_close_matches(name.lower(), spoken, n=3, cutoff=0.5)
        raise InputError(f"template: there is no bundled template {name!r}",
                         mend=f"did you mean {' or '.join(near)}? " * bool(near) + "`tunewright template list` shows all names")
    return policies()[known]


def bundled_source(name: str, tool_format: str | None = None) -> TemplateSource:
    """The bundled template of this name. Raises `InputError` if there is none, or if the name stands for the tokenizer's own."""
    policy = named_policy(name)
    require(policy.tokenizer is None, f"template {policy.name} stands for the tokenizer's own chat template, because {policy.tokenizer}",
            mend="name the model too")
    return TemplateSource(policy.name, policy.text(tool_format), True, policy.stops, policy.also_stop, policy.thought,
                          never_thinks=policy.never_thinks, is_open=policy.is_open)


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

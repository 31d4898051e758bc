"""The templates that have a name: whose text, and the policy that goes with it. Standard library only.

The table is `assets/templates/table.json`. A row is of one of four kinds:

* its own jinja file (`file`, or the file of its name);
* slots: the text around the system prompt, questions, answers and results, put into the common frame `turns.jinja`; in a slot `{}` is the
  message's text, `{bos}` and `{eos}` are the tokenizer's tokens, `{default_bos}` is BOS if the tokenizer adds one by itself;
* `like`: another row, with what this row says otherwise; `values` are variables for its file;
* `tokenizer`: the tokenizer's own template, with the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from tunewright.errors import InputError

THINK: Final = ("<think>\n", "\n</think>\n\n")
"""The words around a thought where a template names no others."""

_SLOTS: Final = {"begin": (), "system_turn": ("text",), "folded": ("text",), "user_turn": ("text",), "answer_header": (),
                 "answer": ("text",), "results_open": (), "result_turn": ("text",), "results_close": ()}
_PIECES: Final = re.compile(r"\{(|bos|eos|default_bos)\}")
_MEANT: Final = {"": "text", "bos": "bos_token", "eos": "eos_token", "default_bos": "default_bos"}
_FORMATS: Final = ("default", "deepseek", "gemma4", "glm4", "glm4_moe", "lfm2", "ling", "llama3", "minimax1", "minimax2", "mistral", "qwen",
                   "qwen3_5", "seed_oss")
_SAME_FORMAT: Final = {"react": "default", "hermes": "qwen"}


@dataclass(frozen=True)
class Policy:
    """A row of the table. `row` holds what the jinja is made of, with that of the row which it is `like`.

    `stops`: role tokens that end an answer because the next turn begins; `also_stop`: further literals that end generation; `thought`: the
    words around a thought; `tools`: the format in which it writes tools by itself, None if its own text does or if it has none; `media`:
    what a model with this template takes besides text - rows with it are refused; `tokenizer`: why the text is the tokenizer's own;
    `never_thinks`: rows are rendered with thinking off; `is_open`: earlier answers are not closed.
    """

    name: str
    row: Mapping[str, Any]
    like: str | None
    aliases: tuple[str, ...]
    stops: tuple[str, ...]
    also_stop: tuple[str, ...]
    thought: tuple[str, str]
    tools: str | None
    media: str | None
    tokenizer: str | None
    never_thinks: bool
    is_open: bool

    @property
    def default_system(self) -> str | None:
        """The system prompt that the template writes by itself."""
        found: str | None = self.row.get("default_system")
        return found

    @property
    def folds_system(self) -> bool:
        """Whether a system prompt becomes a part of the first question."""
        return "folded" in self.row or bool(self.row.get("folds"))

    @property
    def origin(self) -> str:
        """Where the text comes from, in words."""
        if self.tokenizer is not None:
            return "tokenizer"
        return "turns.jinja" if "answer" in self.row else str(self.row.get("file", f"{self.name}.jinja"))

    def text(self, tool_format: str | None = None) -> str:
        """The jinja text, whole and by itself; `tool_format` in the place of its own format of tools."""
        tools = tool_format or self.row.get("tools")
        default = self.default_system
        head = "" if default is None else (
            f"{{%- if default_system is not defined %}}{{% set default_system = {_quoted(default)} %}}{{% endif %}}\n")
        head += "".join(f"{{%- set {name} = {_quoted(value)} %}}\n" for name, value in self.row.get("values", {}).items())
        told = "" if tools is None else tool_format_text(tools, in_question=self.folds_system)
        if "answer" in self.row:
            return head + told + _slots(self.row) + _asset("turns.jinja")
        return head + told + _asset(self.origin)


@cache
def policies() -> Mapping[str, Policy]:
    """Every row by its name, in the table's order."""
    table: dict[str, dict[str, Any]] = json.loads(_asset("table.json"))
    return {name: _policy(name, _merged(name, table), row) for name, row in table.items()}


@cache
def spoken_names() -> Mapping[str, str]:
    """Every name and alias -> the row's name."""
    return {alias: name for name, policy in policies().items() for alias in (name, *policy.aliases)}


def tool_format_names() -> tuple[str, ...]:
    """The names of the tool formats and their other spellings."""
    return (*_FORMATS, *_SAME_FORMAT)


def tool_format_text(name: str, *, in_question: bool = False) -> str:
    """Jinja that puts tools into words in this format and hides them from the template behind it; `in_question`: definitions stand
    before the first question, for templates without a system prompt. Raises `InputError` with the known names."""
    known = _SAME_FORMAT.get(name.lower(), name.lower())
    if known not in _FORMATS:
        raise InputError(f"tool_format: there is no format {name!r}", mend=f"use one of {', '.join(tool_format_names())}")
    place = "{%- set tools_in_question = true %}\n" if in_question else ""
    return _asset(f"tools/{known}.jinja") + place + _asset("retell.jinja")


def _merged(name: str, table: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    row = table[name]
    if "like" not in row:
        return {"file": f"{name}.jinja", **row}
    return {**_merged(row["like"], table), "aliases": (), **row}


def _policy(name: str, row: Mapping[str, Any], own: Mapping[str, Any]) -> Policy:
    return Policy(
        name=name, row=row, like=own.get("like"), aliases=tuple(own.get("aliases", ())), stops=tuple(row.get("stops", ())),
        also_stop=tuple(row.get("also_stop", ())), thought=(*row.get("thought", THINK),), tools=row.get("tools"), media=row.get("media"),
        tokenizer=row.get("tokenizer"), never_thinks=bool(row.get("never_thinks")),
        is_open=bool(row.get("open")))


def _slots(row: Mapping[str, Any]) -> str:
    """The macros and switches that the frame reads."""
    slots = {"result_turn": row["user_turn"] if "result_turn" not in row else row["result_turn"], **row}
    macros = [_macro(name, arguments, slots.get(name, "")) for name, arguments in _SLOTS.items()]
    opening = _PIECES.split(row["answer"])[0]
    thinks = row.get("thinks", {})
    switches = {"folds_system": "folded" in row, "trims": bool(row.get("trims")), "thinks": bool(thinks),
                "keeps_thoughts": bool(thinks.get("history")), "has_switch": bool(thinks.get("switch")),
                "opens_thought": bool(thinks.get("opens")) and not row.get("never_thinks"),
                "empty_last": thinks.get("empty") == "last", "empty_blocks": thinks.get("empty") == "chain"}
    words = dict(zip(("thought_open", "thought_close"), row.get("thought", THINK), strict=True))
    return "\n".join([*macros, f"{{%- macro answer_open() %}}{{{{ {_quoted(opening)} }}}}{{% endmacro %}}",
                      *(f"{{%- set {name} = {str(value).lower()} %}}" for name, value in switches.items()),
                      *(f"{{%- set {name} = {_quoted(value)} %}}" for name, value in words.items())]) + "\n"


def _macro(name: str, arguments: tuple[str, ...], slot: str) -> str:
    pieces = _PIECES.split(slot)
    parts = [_MEANT[piece] if number % 2 else _quoted(piece) for number, piece in enumerate(pieces) if number % 2 or piece]
    return f"{{%- macro {name}({', '.join(arguments)}) %}}{{{{ {' ~ '.join(parts) or _quoted('')} }}}}{{% endmacro %}}"


def _quoted(text: str) -> str:
    """A literal of jinja, which reads escapes as JSON writes them."""
    return json.dumps(text, ensure_ascii=False)


@cache
def _asset(name: str) -> str:
    return (files("tunewright.assets") / "templates" / name).read_text("utf-8")

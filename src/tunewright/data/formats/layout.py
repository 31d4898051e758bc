"""Which format a data set has, and how its columns and role tags are called. Standard library only.

Keys are those of LLaMA-Factory's `dataset_info.json`. A key that is not given keeps its default even if others are given;
LLaMA-Factory unsets the rest, so that rows vanish (`data_compat: columns-partial-defaults` does the same).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from tunewright.data.quirks import STRICT, Quirks

Kind = Literal["conversation", "preference", "feedback", "prompt", "text", "tokens"]
"""What rows become: the records of `data.records`."""

MEDIA_COLUMNS: Final = ("images", "videos", "audios")
OPTIONAL_COLUMNS = ("query", "history", "system", "tools")

_ANSWERS: Final = ("chosen", "rejected")
_EXTRAS: Final = ("system", "tools", *_ANSWERS, "kto_tag")

COLUMN_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "alpaca": {"prompt": "instruction", "query": "input", "response": "output"},
    "sharegpt": {"messages": "conversations"},
    "openai": {"messages": "messages", "tools": "tools"},
    "table": {"prompt": "human", "response": "assistant"},
    "prompt_completion": {"prompt": "prompt", "response": "completion", "tools": "tools"},
    "text": {"prompt": "text"},
    "preference": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", "tools": "tools"},
    "openai_preference": {"prompt": "input", "chosen": "preferred_output", "rejected": "non_preferred_output"},
    "parts": {"messages": "messages", "tools": "tools"},
    "prompt_only": {"prompt": "prompt", "tools": "tools"},
    "tokens": {"ids": "input_ids", "labels": "labels", "mask": "attention_mask"},
}
"""Format -> key of `columns` -> name of the column, as far as it has a default."""

FORMATTINGS = tuple(COLUMN_DEFAULTS)

COLUMN_KEYS: Mapping[str, tuple[str, ...]] = {
    "alpaca": ("prompt", "query", "response", "history", *_EXTRAS),
    "sharegpt": ("messages", *_EXTRAS),
    "openai": ("messages", *_EXTRAS),
    "table": ("prompt", "response", "system", "kto_tag"),
    "prompt_completion": ("prompt", "response", "system", "tools", "kto_tag"),
    "text": ("prompt",),
    "preference": ("prompt", *_ANSWERS, "system", "tools"),
    "openai_preference": ("prompt", *_ANSWERS),
    "parts": ("messages", "system", "tools", *_ANSWERS, "kto_tag"),
    "prompt_only": ("prompt", "system", "tools"),
    "tokens": ("ids", "labels", "mask"),
}
"""Format -> the keys of `columns` that it reads."""

_SHAREGPT_TAGS = {
    "role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt", "observation_tag": "observation",
    "function_tag": "function_call", "system_tag": "system",
}
OPENAI_TAGS: Mapping[str, str] = {
    "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant", "observation_tag": "tool",
    "function_tag": "function", "system_tag": "system",
}
_OTHER_ROLES: Mapping[str, str] = {"developer": "system", "tool_call": "call", "tool_response": "tool"}
"""Roles of messages beside those that tags name: OpenAI's newer name for system, ms-swift's of a call and its result."""

TAG_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "sharegpt": _SHAREGPT_TAGS, "openai": OPENAI_TAGS, "prompt_completion": OPENAI_TAGS, "preference": OPENAI_TAGS,
    "openai_preference": OPENAI_TAGS, "prompt_only": OPENAI_TAGS, "parts": OPENAI_TAGS,
}
"""Format -> key of `tags` -> name in the rows; formats without messages have no tags."""

_KINDS: Mapping[str, Kind] = {"text": "text", "tokens": "tokens", "prompt_only": "prompt"}


@dataclass(frozen=True, slots=True)
class Layout:
    """A format with the names it goes by in one data set.

    `given` are the keys of `columns` that the user wrote; `kind` is what its rows become; `quirks` are LLaMA-Factory's, to be
    reproduced. `roles`: a message's role as rows name it -> system, user, assistant, tool, or `call` for an assistant's call that stands
    in the content. `told` are the columns that are read, or that the line of the set names as not read, `told_keys` the same of messages;
    None before rows were seen.
    """

    formatting: str
    columns: Mapping[str, str]
    tags: Mapping[str, str]
    given: frozenset[str] = frozenset()
    kind: Kind = "conversation"
    quirks: Quirks = field(default=STRICT, repr=False)
    told: frozenset[str] | None = field(default=None, repr=False, compare=False)
    told_keys: frozenset[str] | None = field(default=None, repr=False, compare=False)
    roles: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "roles", _roles(self.formatting, self.tags, self.quirks))

    def column(self, key: str) -> str | None:
        """Name of the column for `key`, or None if the format has none."""
        return self.columns.get(key)

    def described(self) -> str:
        """`alpaca (prompt=instruction, query=input, response=output)`, with the tags that are not the format's usual ones."""
        usual = TAG_DEFAULTS.get(self.formatting, {})
        tags = {key: name for key, name in self.tags.items() if name != usual.get(key)}
        named = ", ".join(f"{key}={name}" for key, name in {**self.columns, **tags}.items())
        return f"{self.formatting} ({named})"


def layout(formatting: str, columns: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None) -> Layout:
    """The layout of `formatting` with `columns` and `tags` over the defaults, key by key."""
    given = dict(columns or {})
    return exact_layout(formatting, over_defaults(COLUMN_DEFAULTS[formatting], given), {**TAG_DEFAULTS.get(formatting, {}), **(tags or {})},
                        frozenset(given))


def over_defaults(defaults: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The columns that are given, and the default ones but those that are given for another key: they would be read twice."""
    taken = set(given.values())
    return {**{key: name for key, name in defaults.items() if key in given or name not in taken}, **given}


def exact_layout(formatting: str, columns: Mapping[str, str], tags: Mapping[str, str], given: frozenset[str]) -> Layout:
    """The layout with these names and no others; pairs of answers have no `response` unless the user gave one."""
    kind = _kind(formatting, columns)
    if kind == "preference" and "response" not in given:
        columns = {key: name for key, name in columns.items() if key != "response"}
    return Layout(formatting, columns, tags, given, kind)


def ranked(found: Layout) -> Layout:
    """The layout of pairs of answers (`ranking: true`), which stand in `chosen` and `rejected` unless columns say otherwise."""
    if found.kind == "preference" or "chosen" not in COLUMN_KEYS[found.formatting]:
        return found
    return replace(exact_layout(found.formatting, {**found.columns, "chosen": "chosen", "rejected": "rejected"}, found.tags, found.given),
                   quirks=found.quirks)


def named_columns(columns: Mapping[str, str]) -> Layout | None:
    """Alpaca's layout with these names for prompt, query, response and history; None if they are the usual ones.

    As in a detected layout, history, system and tools are read where rows have them.
    """
    usual = {**COLUMN_DEFAULTS["alpaca"], "history": "history"}
    given = frozenset(key for key, name in columns.items() if name != usual[key])
    kept = over_defaults({"history": "history", "system": "system", "tools": "tools", **columns}, {key: columns[key] for key in given})
    found = layout("alpaca", kept)
    return replace(found, given=given) if given else None


def _kind(formatting: str, columns: Mapping[str, str]) -> Kind:
    if formatting in _KINDS:
        return _KINDS[formatting]
    if "chosen" in columns or "rejected" in columns:
        return "preference"
    return "feedback" if "kto_tag" in columns else "conversation"


def _roles(formatting: str, tags: Mapping[str, str], quirks: Quirks) -> Mapping[str, str]:
    is_openai = formatting != "sharegpt"
    is_result = is_openai and tags.get("function_tag") == OPENAI_TAGS["function_tag"] and "openai-function-is-call" not in quirks
    named = {"user_tag": "user", "assistant_tag": "assistant", "system_tag": "system", "observation_tag": "tool",
             "function_tag": "tool" if is_result else "call"}
    found = {tags[key]: role for key, role in named.items() if tags.get(key)}
    usual = _OTHER_ROLES if is_openai else {}
    return {**found, **{name: role for name, role in usual.items() if name not in found}}

"""Which format a first row has. The most telling columns are looked for first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from tunewright.data.formats.layout import COLUMN_DEFAULTS, COLUMN_KEYS, TAG_DEFAULTS, Layout, exact_layout, layout, over_defaults
from tunewright.data.formats.table import PAIRS

_QUESTION_ANSWER = (("instruction", "output"), ("instruction", "response"), ("query", "response"), ("prompt", "response"),
                    ("question", "answer"), ("problem", "solution"), ("input", "output"))
_QUESTIONS = ("instruction", "question", "query")
_MARKS = ("label", "kto_tag")
_WORSE = ("rejected_response", "rejected_messages")
"""ms-swift's columns of the worse answer; the better one ends the conversation."""
_CONTEXT = "context"
"""Dolly's and SQuAD's column of what a question is about, where there is no `input`."""
_FUNCTIONS = "functions"
"""OpenAI's older name of `tools`."""
_NAMES: Final = ({"user_tag": "user", "assistant_tag": "assistant", "observation_tag": "tool"},
                 {"user_tag": "human", "assistant_tag": "gpt", "observation_tag": "observation"})
"""What messages call the user, the assistant and results, whatever their role stands under."""
_ALWAYS_READ = ("history", "system", "tools")
"""Columns that a detected layout reads where rows have them. Registered sets name them, as in LLaMA-Factory."""
PROMPT_STAGES: Final = ("ppo", "grpo")


def detect(values: Mapping[str, Any], stage: str = "sft") -> Layout | None:
    """The layout of a data set whose first row is `values`, or None.

    A column `label` or `kto_tag` makes feedback of the rows if it is a boolean, or if `stage` is kto: numbers may be classes.
    """
    if isinstance(values.get("input_ids"), list):
        columns = {key: name for key, name in COLUMN_DEFAULTS["tokens"].items() if key == "ids" or values.get(name) is not None}
        return exact_layout("tokens", columns, {}, frozenset())
    return _pairs(values) or _listed(values, stage) or _columns(values, stage)


def _pairs(values: Mapping[str, Any]) -> Layout | None:
    """Pairs of answers that stand beside a prompt, or hold it."""
    if {"preferred_output", "non_preferred_output"} <= values.keys():
        return layout("openai_preference")
    if {"chosen_messages", "rejected_messages"} <= values.keys():
        formatting = message_form(values["chosen_messages"]) or "parts"
        columns = {"chosen": "chosen_messages", "rejected": "rejected_messages", "tools": "tools"}
        return exact_layout(formatting, columns, TAG_DEFAULTS[formatting], frozenset())
    if not {"chosen", "rejected"} <= values.keys() or (
            not _is_conversation(values["chosen"]) and any(message_form(values.get(column)) for column in ("messages", "conversations"))):
        return None
    question = next((name for name in _QUESTIONS if name in values), None)
    if question is not None:
        return _with_extras("alpaca", {"prompt": question, **_context(values), "chosen": "chosen", "rejected": "rejected"})
    if message_form(values["chosen"]) == "sharegpt":
        return exact_layout("sharegpt", {"chosen": "chosen", "rejected": "rejected", "system": "system", "tools": "tools"},
                            TAG_DEFAULTS["sharegpt"], frozenset())
    found = _with_extras("preference", {})
    if "prompt" in values:
        return found
    return replace(found, columns={key: name for key, name in found.columns.items() if key != "prompt"})


def _listed(values: Mapping[str, Any], stage: str) -> Layout | None:
    """Rows that are lists of messages."""
    for column in ("messages", "conversations"):
        form = message_form(values.get(column))
        if form is None:
            continue
        columns = {"messages": column}
        worse = next((name for name in _WORSE if values.get(name) is not None), None)
        if worse is not None:
            columns["rejected"] = worse
        elif {"chosen", "rejected"} <= values.keys():
            columns |= {"chosen": "chosen", "rejected": "rejected"}
        else:
            columns |= _marked(values, stage)
        if form == "openai" and values.get(_FUNCTIONS) is not None and values.get("tools") is None:
            columns["tools"] = _FUNCTIONS
        return replace(_with_extras(form, columns), tags=_tags(form, values[column]))
    return None


def _columns(values: Mapping[str, Any], stage: str) -> Layout | None:
    """Rows whose parts stand in columns of their own."""
    marks = _marked(values, stage)
    if {"prompt", "completion"} <= values.keys():
        return _with_extras("prompt_completion", marks)
    for prompt, response in _QUESTION_ANSWER:
        if {prompt, response} <= values.keys():
            if values.get("rejected_response") is not None:
                return _with_extras("alpaca", {"prompt": prompt, **_context(values), "chosen": response, "rejected": "rejected_response"})
            return _with_extras("alpaca", {"prompt": prompt, **_context(values), "response": response, **marks})
    if {"human", "assistant"} <= values.keys() or PAIRS in values:
        return _with_extras("table", marks)
    if "prompt" in values and (stage in PROMPT_STAGES or len(values) == 1):
        return _with_extras("prompt_only", {})
    return layout("text") if "text" in values else None


def message_form(messages: Any) -> str | None:
    """The format of a list of messages: openai, parts or sharegpt; None if it is none."""
    if not isinstance(messages, list) or not messages or not isinstance(messages[0], Mapping):
        return None
    first = messages[0]
    if "role" not in first:
        return "sharegpt" if {"from", "value"} <= first.keys() else None
    content = first.get("content")
    has_parts = isinstance(content, list) and content and isinstance(content[0], Mapping) and "value" in content[0]
    return "parts" if has_parts else "openai"


def _is_conversation(value: Any) -> bool:
    """Whether an answer is a whole conversation: a list of messages that begins with its question."""
    if message_form(value) is None:
        return False
    return value[0].get("role", value[0].get("from")) in ("system", "user", "human")


def _tags(form: str, messages: list[Any]) -> Mapping[str, str]:
    """The names of the roles: the format's own, unless the messages have those of another format."""
    usual = TAG_DEFAULTS[form]
    if form == "parts":
        return usual
    roles = (message.get(usual["role_tag"]) for message in messages if isinstance(message, Mapping))
    said = {role for role in roles if isinstance(role, str)}
    if not said & {usual["user_tag"], usual["assistant_tag"]}:
        for names in _NAMES:
            if {names["user_tag"], names["assistant_tag"]} <= said:
                return {**usual, **names}
    return usual


def _context(values: Mapping[str, Any]) -> dict[str, str]:
    return {"query": _CONTEXT} if isinstance(values.get(_CONTEXT), str) and "input" not in values else {}


def _marked(values: Mapping[str, Any], stage: str) -> dict[str, str]:
    name = next((name for name in _MARKS if isinstance(values.get(name), bool) or (stage == "kto" and name in values)), None)
    return {} if name is None else {"kto_tag": name}


def _with_extras(formatting: str, columns: dict[str, str]) -> Layout:
    extras = {key: key for key in _ALWAYS_READ if key in COLUMN_KEYS[formatting]}
    named = over_defaults({**COLUMN_DEFAULTS[formatting], **extras}, columns)
    return exact_layout(formatting, named, TAG_DEFAULTS.get(formatting, {}), frozenset())

"""Rows in = rows kept + rows reported, for rows made at random in every format.

Oracle: counting. A row is kept, refused with a reason, or an error that names its line; a kept row's record has the row's place, ends as
its kind demands, and every text of it stood in the row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewright.data.audit import Note, SetAudit
from tunewright.data.formats.convert import convert
from tunewright.data.formats.fields import Converted, Refusal
from tunewright.data.formats.layout import FORMATTINGS, Layout, layout, ranked
from tunewright.data.json_rows import Row
from tunewright.data.quirks import COMPAT, STRICT
from tunewright.data.records import IGNORE_INDEX, Conversation, Feedback, Message, Origin, Preference, Prompt, Record, Text, TokenIds
from tunewright.errors import InputError

WORDS = st.sampled_from(["", " ", "hi", "a b", "é\n", "<|im_end|>", "0"])
JSON = st.recursive(st.none() | st.booleans() | st.integers(-3, 3) | WORDS, lambda inner: st.lists(inner, max_size=2)
                    | st.dictionaries(st.sampled_from(["role", "from", "name"]), inner, max_size=2), max_leaves=4)
CALLS = st.sampled_from(['{"name": "f", "arguments": {"a": 1}}', '[{"name": "f"}, {"name": "g"}]', "f()"])
ROLES = st.sampled_from(["user", "assistant"] * 4 + ["system", "tool", "function", "developer", "wizard"])
TAGS = st.sampled_from(["human", "gpt"] * 4 + ["system", "observation", "wizard"])
MARKS = st.sampled_from([True, False, 0, 1, "true", "False", None, 7])


def rarely(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly what the format wants."""
    return st.integers(0, 15).flatmap(lambda number: JSON if number == 0 else usual)


TOOL_CALLS = st.lists(st.fixed_dictionaries({"function": st.fixed_dictionaries(
    {"name": st.just("f")}, optional={"arguments": st.sampled_from(['{"a": 1}', {"a": 1}, "", None])})}), max_size=2)
MESSAGE = rarely(st.fixed_dictionaries({"role": ROLES, "content": st.one_of(WORDS, st.none(), st.lists(
    st.fixed_dictionaries({"type": st.just("text"), "text": WORDS}), max_size=2))},
    optional={"weight": st.sampled_from([0, 1, None]), "loss": st.booleans(), "tool_calls": TOOL_CALLS, "name": WORDS,
              "reasoning_content": WORDS}))
TURN = st.one_of(st.fixed_dictionaries({"from": TAGS, "value": WORDS}),
                 st.fixed_dictionaries({"from": st.just("function_call"), "value": CALLS}), rarely(st.just({"from": "gpt", "value": "x"})))
PART = st.one_of(st.fixed_dictionaries({"type": st.sampled_from(["text", "reasoning", "tool_result"]), "value": WORDS}),
                 st.fixed_dictionaries({"type": st.just("tool_call"), "value": CALLS}))
IN_PARTS = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "assistant", "tool", "system"]),
                                  "content": st.lists(PART, max_size=2)}, optional={"loss_weight": st.sampled_from([0.0, 1.0])})


def alternating(one: st.SearchStrategy[Any], key: str, names: tuple[str, str]) -> st.SearchStrategy[list[Any]]:
    """Lists of messages, half of them in the order that a conversation has."""

    def in_order(found: list[Any]) -> list[Any]:
        return [{**message, key: names[at % 2]} if isinstance(message, dict) else message for at, message in enumerate(found)]

    return st.lists(one, max_size=5) | st.lists(one, min_size=2, max_size=5).map(in_order)


MESSAGES = alternating(MESSAGE, "role", ("user", "assistant"))
TURNS = alternating(TURN, "from", ("human", "gpt"))
PARTS = alternating(IN_PARTS, "role", ("user", "assistant"))
SIDE = st.one_of(WORDS, MESSAGES, MESSAGE)
IDS = st.lists(st.integers(0, 5), max_size=5)


def some(**columns: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Rows in which now and then a column is missing."""
    return st.fixed_dictionaries({name: rarely(values) for name, values in columns.items()}).flatmap(
        lambda row: st.sampled_from([row] * 12 + [{key: row[key] for key in row if key != name} for name in row]))


TOOLS = st.sampled_from([None, "", '[{"name": "f"}]', [{"type": "function", "function": {"name": "f"}}], "[{"])
EXTRAS = {"system": "system", "tools": "tools"}
KTO = {**EXTRAS, "kto_tag": "label"}
FORMATS: dict[str, tuple[Layout, st.SearchStrategy[dict[str, Any]]]] = {
    "alpaca": (layout("alpaca", {**EXTRAS, "history": "history"}), some(
        instruction=WORDS, input=WORDS | st.none(), output=WORDS, system=WORDS | st.none(), tools=TOOLS,
        history=st.lists(st.lists(WORDS, min_size=2, max_size=2), max_size=2) | st.none())),
    "alpaca pairs": (ranked(layout("alpaca")), some(instruction=WORDS, input=WORDS, chosen=SIDE, rejected=SIDE)),
    "alpaca feedback": (layout("alpaca", KTO), some(instruction=WORDS, output=WORDS, label=MARKS)),
    "sharegpt": (layout("sharegpt", EXTRAS), some(conversations=TURNS, system=WORDS | st.none(), tools=TOOLS)),
    "sharegpt pairs": (ranked(layout("sharegpt")), some(conversations=TURNS, chosen=TURN | WORDS | TURNS, rejected=TURN | WORDS | TURNS)),
    "sharegpt feedback": (layout("sharegpt", KTO), some(conversations=TURNS, label=MARKS)),
    "openai": (layout("openai", EXTRAS), some(messages=MESSAGES, system=WORDS | st.none(), tools=TOOLS)),
    "openai pairs": (ranked(layout("openai")), some(messages=MESSAGES, chosen=SIDE, rejected=SIDE)),
    "openai, worse answer": (layout("openai", {"rejected": "rejected_response"}), some(messages=MESSAGES, rejected_response=SIDE)),
    "openai feedback": (layout("openai", KTO), some(messages=MESSAGES, label=MARKS)),
    "openai_preference": (layout("openai_preference"), some(
        input=st.fixed_dictionaries({"messages": MESSAGES}, optional={"tools": TOOLS}), preferred_output=MESSAGES,
        non_preferred_output=MESSAGES)),
    "parts": (layout("parts", EXTRAS), some(messages=PARTS, tools=TOOLS)),
    "parts pairs": (layout("parts", {"chosen": "chosen", "rejected": "rejected"}), some(messages=PARTS, chosen=PARTS, rejected=PARTS)),
    "table": (layout("table"), some(human=WORDS, assistant=WORDS, category=WORDS)),
    "table of pairs": (layout("table"), some(
        conversation=st.lists(st.fixed_dictionaries({"human": WORDS, "assistant": WORDS}), max_size=3))),
    "prompt_completion": (layout("prompt_completion", EXTRAS), some(prompt=WORDS | MESSAGES, completion=WORDS | MESSAGES, system=WORDS)),
    "unpaired": (layout("prompt_completion", KTO), some(prompt=WORDS | MESSAGES, completion=WORDS | MESSAGES, label=MARKS)),
    "preference": (layout("preference"), some(prompt=WORDS | MESSAGES | st.none(), chosen=SIDE, rejected=SIDE)),
    "prompt_only": (layout("prompt_only"), some(prompt=WORDS | MESSAGES)),
    "text": (layout("text"), some(text=WORDS)),
    "tokens": (layout("tokens"), some(input_ids=IDS, labels=IDS | st.none(), attention_mask=st.lists(st.integers(0, 1), max_size=5)
                                      | st.none())),
}


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts(one)


def turns(record: Record) -> list[Message]:
    if isinstance(record, Preference):
        return [*record.messages, *record.chosen, *record.rejected]
    return list(record.messages) if isinstance(record, Conversation | Feedback | Prompt) else []


def check(record: Record, row: Row) -> None:
    assert record.origin == row.origin
    if isinstance(record, Conversation):
        assert record.messages[-1].role == "assistant"
        assert any(message.role == "assistant" and message.trained for message in record.messages)
    elif isinstance(record, Feedback):
        assert record.messages[-1].role == "assistant"
        assert isinstance(record.desirable, bool)
    elif isinstance(record, Preference):
        assert record.messages[-1].role in ("user", "tool")
        assert {answer[at].role for answer in (record.chosen, record.rejected) for at in (0, -1)} == {"assistant"}
        assert record.chosen != record.rejected
    elif isinstance(record, Prompt):
        assert record.messages[-1].role in ("user", "tool")
    elif isinstance(record, TokenIds):
        assert len(record.input_ids) == len(record.labels) > 0
        assert all(label in (token, IGNORE_INDEX) for token, label in zip(record.input_ids, record.labels, strict=True))
    else:
        assert isinstance(record, Text)
        assert record.text.strip()
    written = "".join(texts(row.values))
    for message in turns(record):
        for piece in message.content.split("\n"):
            assert piece in written


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_row_is_kept_or_reported(name: str, data: st.DataObject) -> None:
    form, row_of = FORMATS[name]
    values = data.draw(st.lists(row_of, min_size=1, max_size=4))
    kept, notes, errors = 0, [], 0
    for index, one in enumerate(values):
        row = Row(json.loads(json.dumps(one)), Origin("a.jsonl", index, index + 1))
        try:
            outcome = convert(row, form)
        except InputError as error:
            assert error.line().startswith(f"a.jsonl:{index + 1}: ")
            assert "\n" not in error.line()
            errors += 1
            continue
        if isinstance(outcome, Refusal):
            assert outcome.reason
            notes.append(Note(row.origin, "dropped", outcome.reason, outcome.detail))
        else:
            assert isinstance(outcome, Converted)
            check(outcome.record, row)
            kept += 1
    assert kept + len(notes) + errors == len(values)
    assert SetAudit("a", len(values), tuple(notes)).dropped == len(notes)


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("tokens", "text")])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_compat_too_keeps_or_reports_every_row(name: str, data: st.DataObject) -> None:
    """LLaMA-Factory's readings may differ from ours, but no row ends in anything but a record, a reason or one line."""
    from dataclasses import replace

    form, row_of = FORMATS[name]
    row = Row(data.draw(row_of), Origin("a.jsonl", 0, 1))
    for quirks in (STRICT, COMPAT):
        try:
            outcome = convert(row, replace(form, quirks=quirks))
        except InputError as error:
            assert error.line().startswith("a.jsonl:1: ")
            continue
        assert isinstance(outcome, Refusal | Converted)


def test_every_format_is_here() -> None:
    assert {form.formatting for form, _ in FORMATS.values()} == set(FORMATTINGS)

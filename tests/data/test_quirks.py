"""LLaMA-Factory's quirks in reading: each mended in strict, and reproduced by its name and by `compat`.

Oracle: what its converters and its registry do, as its documents and faults describe it, written out by hand.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunewright.config.data import DataConfig
from tunewright.config.quirks import QUIRKS, READ, REFUSED
from tunewright.data.formats.fields import Converted, Refusal
from tunewright.data.quirks import COMPAT, STRICT, Quirks, chosen
from tunewright.data.records import Conversation, Feedback, Message, Preference
from tunewright.data.sources import outcomes, rows, settle, source_of
from tunewright.errors import InputError

ASK = {"role": "user", "content": "q"}
SAY = {"role": "assistant", "content": "a"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
TOOLS = [{"name": "f"}]


def result(text: str) -> dict[str, str]:
    return {"role": "tool", "content": text}


def turn(who: str, text: str) -> dict[str, str]:
    return {"from": who, "value": text}


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(messages: tuple[Message, ...]) -> str:
    """`u:q a:a` for a question and its answer; an answer that is not trained is in brackets."""
    words = []
    for message in messages:
        text = message.content or "".join(call.name + "()" for call in message.tool_calls)
        word = f"{message.role[0]}:{text}"
        words.append(word if message.trained else f"({word})")
    return " ".join(words)


def read(row: dict[str, Any], entry: dict[str, Any], compat: tuple[str, ...], stage: str = "sft") -> str:
    """What the row becomes: its turns, or why it is left out; the error if it is one."""
    Path("d").mkdir(exist_ok=True)
    Path("d/a.jsonl").write_text(json.dumps(row) + "\n")
    Path("d/dataset_info.json").write_text(json.dumps({"set": {"file_name": "a.jsonl", **entry}}))
    data = DataConfig(dataset=("set",), dataset_dir="d", data_compat=compat)
    try:
        (_, outcome), = outcomes(settle(source_of("set", data, "dataset", str), stage))
    except InputError as error:
        return f"error: {error.message}"
    if isinstance(outcome, Refusal):
        return f"dropped: {outcome.reason}"
    assert isinstance(outcome, Converted)
    record = outcome.record
    if isinstance(record, Preference):
        return f"{said(record.messages)} | {said(record.chosen)} | {said(record.rejected)}"
    if isinstance(record, Feedback):
        return f"{said(record.messages)} {'good' if record.desirable else 'bad'}"
    assert isinstance(record, Conversation)
    return said(record.messages)


ALPACA = {"instruction": "q", "output": "a"}
OPENAI = {"formatting": "openai"}
LOCAL: dict[str, tuple[dict[str, Any], dict[str, Any], str, str, str]] = {
    "columns-partial-defaults": (
        {**ALPACA, "input": "more"}, {"columns": {"prompt": "instruction", "response": "output"}}, "sft", "u:q\nmore a:a", "u:q a:a"),
    "tags-partial-defaults": (
        {"conversations": [turn("user", "q"), turn("gpt", "a")]},
        {"formatting": "sharegpt", "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "user"}}, "sft",
        "u:q a:a", "dropped: unknown role"),
    "unknown-keys-ignored": (
        ALPACA, {"format": "sharegpt"}, "sft", "error: unknown key `format`", "u:q a:a"),
    "turns-by-parity": (
        {"messages": [ASK, CALL, result("r"), result("s"), SAY]}, OPENAI, "sft", "u:q a:f() t:r t:s a:a", "dropped: turns out of order"),
    "empty-answer-trained": (
        {"conversations": [turn("human", "1"), turn("gpt", ""), turn("human", "2"), turn("gpt", "a")]}, {"formatting": "sharegpt"}, "sft",
        "u:1 (a:) u:2 a:a", "u:1 a: u:2 a:a"),
    "history-not-list-ignored": (
        {**ALPACA, "history": "old"}, {"columns": {"prompt": "instruction", "response": "output", "history": "history"}}, "sft",
        "error: history: array wanted, found string", "u:q a:a"),
    "answer-not-text-dropped": (
        {"instruction": "q", "output": 7}, {}, "sft", "error: output: string wanted, found integer 7", "dropped: no answer"),
    "openai-tool-join": (
        {"messages": [ASK, CALL, result("r"), result("s"), SAY]}, OPENAI, "sft", "u:q a:f() t:r t:s a:a",
        "u:q a:f() t:r\n</tool_response>\n<tool_response>\ns a:a"),
    "openai-function-is-call": (
        {"messages": [ASK, {"role": "function", "content": '{"name": "f"}'}, result("r"), SAY]},
        {**OPENAI, "columns": {"messages": "messages"}, "tags": {"function_tag": "function"}}, "sft",
        "dropped: turns out of order", "u:q a:f() t:r a:a"),
    "trailing-tool-dropped": (
        {"messages": [ASK, CALL, result("r")]}, OPENAI, "sft", "dropped: turns out of order", "u:q a:f()"),
    "openai-thinking-sentence": (
        {"messages": [{"role": "system", "content": "s"}, ASK, SAY]}, OPENAI, "sft", "s:s u:q a:a", "s:s\ndetailed thinking off u:q a:a"),
    "pair-other-form-dropped": (
        {"conversations": [turn("human", "q")], "chosen": "x", "rejected": "y"}, {"formatting": "sharegpt", "ranking": True}, "rm",
        "u:q | a:x | a:y", "dropped: no answer"),
    "ranking-bad-role-kept": (
        {"conversations": [turn("human", "q")], "chosen": turn("human", "x"), "rejected": turn("gpt", "y")},
        {"formatting": "sharegpt", "ranking": True}, "rm", "dropped: turns out of order", "u:q | a:x | a:y"),
    "kto-empty-desired": (
        {"instruction": "q", "output": "", "label": True},
        {"columns": {"prompt": "instruction", "response": "output", "kto_tag": "label"}}, "kto", "u:q a: good", "u:q a: bad"),
    "kto-tag-not-boolean-dropped": (
        {**ALPACA, "label": "true"}, {"columns": {"prompt": "instruction", "response": "output", "kto_tag": "label"}}, "kto",
        "u:q a:a good", "dropped: no mark"),
}


@pytest.mark.effect("data_compat")
@pytest.mark.parametrize("name", LOCAL)
def test_each_quirk_by_its_name(name: str) -> None:
    """Strict mends it, its name alone reproduces it, and the other quirks together leave it mended."""
    row, entry, stage, mended, reproduced = LOCAL[name]
    assert read(row, entry, ("strict",), stage) == mended
    assert read(row, entry, (name,), stage) == reproduced


COMPAT_TOO = [name for name in LOCAL if name not in ("turns-by-parity", "openai-function-is-call", "trailing-tool-dropped",
                                                     "openai-tool-join")]


@pytest.mark.parametrize("name", COMPAT_TOO)
def test_compat_has_each(name: str) -> None:
    row, entry, stage, _, reproduced = LOCAL[name]
    assert read(row, entry, ("compat",), stage) == reproduced


def test_compat_of_tools_together() -> None:
    """Joined results stand in an odd place again, and the sentence is put before rows without tools."""
    row, entry, stage, _, joined = LOCAL["openai-tool-join"]
    assert read(row, entry, ("compat",), stage) == f"s:detailed thinking off {joined}"
    cut = {"messages": [ASK, CALL, result("r"), result("s")], "tools": TOOLS}
    assert read(cut, OPENAI, ("compat",), stage) == "u:q a:f()"


UNSET: dict[str, tuple[dict[str, Any], str]] = {
    "messages": ({"formatting": "sharegpt", "columns": {"system": "s"}},
                 "columns.messages: not given, and columns-partial-defaults unsets it"),
    "role": ({"formatting": "sharegpt", "tags": {"user_tag": "me"}}, "tags.role_tag: not given, and tags-partial-defaults unsets it"),
    "content": ({"formatting": "openai", "tags": {"role_tag": "r"}}, "tags.content_tag: not given, and tags-partial-defaults unsets it"),
}


@pytest.mark.parametrize("case", UNSET)
def test_what_is_unset_and_needed_is_one_line(case: str) -> None:
    """LLaMA-Factory ends in a KeyError at the first row."""
    entry, message = UNSET[case]
    assert read({"conversations": []}, entry, ("compat",)) == f"error: {message}"


def test_an_unset_answer_leaves_rows_out() -> None:
    assert read(ALPACA, {"columns": {"prompt": "instruction"}}, ("compat",)) == "dropped: no answer"
    assert read(ALPACA, {"columns": {"response": "output"}}, ("compat",)) == "u: a:a"


SENTENCE = {
    "no system": ([ASK, SAY], None, "s:detailed thinking off u:q a:a"),
    "no system, tools": ([ASK, SAY], TOOLS, "u:q a:a"),
    "system, tools": ([{"role": "system", "content": "s"}, ASK, SAY], TOOLS, "s:s\n u:q a:a"),
    "said already": ([{"role": "system", "content": "detailed thinking on"}, ASK, SAY], None, "s:detailed thinking on u:q a:a"),
    "empty system": ([{"role": "system", "content": ""}, ASK, SAY], None, "s:detailed thinking off u:q a:a"),
}


@pytest.mark.parametrize("case", SENTENCE)
def test_the_sentence_on_thinking(case: str) -> None:
    messages, tools, expected = SENTENCE[case]
    assert read({"messages": messages, "tools": tools}, OPENAI, ("openai-thinking-sentence",)) == expected


def folder(compat: tuple[str, ...]) -> list[str]:
    source = source_of("set", DataConfig(dataset=("set",), data_compat=compat), "dataset", str)
    return [row.values["text"] for row in rows(source)]


@pytest.mark.effect("data_compat")
def test_listdir_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the file system is played: that of a real one is not known beforehand."""
    Path("set").mkdir()
    for name in ("b", "a", ".hidden"):
        Path(f"set/{name}.jsonl").write_text(f'{{"text": "{name}"}}\n')
    listed = os.listdir

    def played(path: Any) -> list[str]:
        return ["b.jsonl", ".hidden.jsonl", "a.jsonl"] if Path(path).name == "set" else listed(path)

    monkeypatch.setattr(os, "listdir", played)
    assert folder(("strict",)) == ["a", "b"]
    for compat in ("listdir-order", "compat"):
        assert folder((compat,)) == ["b", ".hidden", "a"]


def test_listdir_order_refuses_what_is_no_data() -> None:
    Path("set/below").mkdir(parents=True)
    with pytest.raises(InputError) as caught:
        folder(("listdir-order",))
    assert caught.value.line() == "set/below: is a folder; name a file of rows"


def test_changes_of_compat_are_in_the_audit() -> None:
    """Reproduced is not silent: each row that is changed says so."""
    Path("a.jsonl").write_text(json.dumps({"messages": [ASK, CALL, result("r"), result("s")]}) + "\n")
    data = DataConfig(dataset=("a.jsonl",), data_compat=("compat",))
    (_, outcome), = outcomes(settle(source_of("a.jsonl", data, "dataset", str), "sft"))
    assert isinstance(outcome, Converted)
    assert outcome.changes == ("the results after turn 2 are cut off", "the system prompt has a sentence on thinking")


IN_PACKING = ("packing-batch-local", "pt-bos-overwrite")
"""Shown in test_lengths.py, with packed sets."""

ELSEWHERE = ("num-samples-numpy", "think-block-in-history")
"""Shown in test_pipeline.py, with draws of several sets, and in templates/test_thinking.py."""


def test_every_quirk_that_can_be_had_is_shown_here() -> None:
    assert {*LOCAL, "listdir-order", *IN_PACKING, *ELSEWHERE} == set(READ)
    assert set(READ) | set(REFUSED) == {quirk.name for quirk in QUIRKS}


def test_the_quirks_of_the_guide_are_declared() -> None:
    """The names that LLaMA-Factory's users know them by."""
    wanted = """
        columns-partial-defaults tags-partial-defaults listdir-order openai-thinking-sentence openai-tool-join trailing-tool-dropped
        kto-empty-desired kto-batch-kl ranking-bad-role-kept truncate-silent zero-target-kept packing-batch-local packing-pad-ones
        pt-bos-overwrite val-size-one llama3-tool-date-today think-block-in-history"""
    assert set(wanted.split()) <= {quirk.name for quirk in QUIRKS}


def test_words_of_the_parameter() -> None:
    assert chosen(("strict",)) == STRICT == chosen(())
    assert chosen(("compat",)) == chosen(("compat", "listdir-order")) == COMPAT == set(READ)
    assert chosen(("listdir-order", "turns-by-parity")) == {"listdir-order", "turns-by-parity"}


def test_a_misspelt_quirk_is_a_mistake_in_the_code() -> None:
    ask: Callable[[], object] = lambda: "listdir-ordre" in Quirks(READ)  # noqa: E731
    with pytest.raises(KeyError, match="listdir-ordre is no quirk"):
        ask()

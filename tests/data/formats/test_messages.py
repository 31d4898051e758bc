"""What OpenAI's, ShareGPT's and other lists of messages may hold. Oracle: records written out by hand from the formats' documents."""

from __future__ import annotations

from typing import Any

import pytest

from tunewright.data.formats.convert import convert, detect
from tunewright.data.formats.fields import Converted, Refusal
from tunewright.data.json_rows import Row
from tunewright.data.records import Conversation, Message, Origin, ToolCall
from tunewright.errors import InputError

HERE = Origin("rows.jsonl", 5, 6)
ASK = {"role": "user", "content": "1"}
SAY = {"role": "assistant", "content": "4"}
ASKED, SAID = Message("user", "1"), Message("assistant", "4")


def found(values: dict[str, Any]) -> Conversation | Refusal:
    layout = detect(values)
    assert layout is not None
    outcome = convert(Row(values, HERE), layout)
    if isinstance(outcome, Refusal):
        return outcome
    assert isinstance(outcome.record, Conversation)
    return outcome.record


def called(*calls: ToolCall, text: str = "", **more: Any) -> Message:
    return Message("assistant", text, tool_calls=calls, **more)


F = ToolCall("f", {"a": 1}, '{"a": 1}')
EMPTY = ToolCall("f", {}, "{}")
MIDDLE: dict[str, tuple[list[dict[str, Any]], tuple[Message, ...]]] = {
    "arguments text": ([{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}]}],
                       (called(F),)),
    "arguments object": ([{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}],
                         (called(F),)),
    "arguments empty": ([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": ""}}]}], (called(EMPTY),)),
    "arguments null": ([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": None}}]}], (called(EMPTY),)),
    "arguments absent": ([{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}], (called(EMPTY),)),
    "calls as text": ([{"role": "assistant", "tool_calls": '[{"function": {"name": "f", "arguments": {"a": 1}}}]'}], (called(F),)),
    "words beside a call": ([{"role": "assistant", "content": "wait", "tool_calls": [{"id": "7", "type": "function", "function": {
        "name": "f", "arguments": "{}"}}]}], (called(ToolCall("f", {}, "{}", "7"), text="wait"),)),
    "no calls": ([{"role": "assistant", "content": "2", "tool_calls": []}], (Message("assistant", "2"),)),
    "calls null": ([{"role": "assistant", "content": "2", "tool_calls": None}], (Message("assistant", "2"),)),
    "older call": ([{"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a": 1}'}}], (called(F),)),
    "ms-swift's call": ([{"role": "tool_call", "content": '{"name": "f", "arguments": {"a": 1}}'}], (called(F),)),
    "ms-swift's calls": ([{"role": "tool_call", "content": '[{"name": "f", "arguments": {"a": 1}}, {"name": "f"}]'}], (called(F, EMPTY),)),
}
RESULTS: dict[str, tuple[dict[str, Any], Message]] = {
    "tool": ({"role": "tool", "content": "r", "tool_call_id": "x"}, Message("tool", "r", call_id="x")),
    "older result": ({"role": "function", "name": "f", "content": "r"}, Message("tool", "r", name="f")),
    "ms-swift's result": ({"role": "tool_response", "content": "r"}, Message("tool", "r")),
    "result in parts": ({"role": "tool", "content": [{"type": "text", "text": "r"}, {"type": "text", "text": "s"}]}, Message("tool", "rs")),
}


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("case", MIDDLE)
def test_calls_and_their_results(case: str, result: str) -> None:
    entries, messages = MIDDLE[case]
    given, wanted = RESULTS[result]
    assert found({"messages": [ASK, *entries, given, SAY]}) == Conversation((ASKED, *messages, wanted, SAID), HERE)


ANSWERS: dict[str, tuple[dict[str, Any], Message]] = {
    "weight 0": ({"weight": 0}, Message("assistant", "2", False)),
    "weight 1": ({"weight": 1}, Message("assistant", "2")),
    "weight null": ({"weight": None}, Message("assistant", "2")),
    "weight 0.0": ({"weight": 0.0}, Message("assistant", "2", False)),
    "loss false": ({"loss": False}, Message("assistant", "2", False)),
    "loss true": ({"loss": True}, Message("assistant", "2")),
    "loss 0": ({"loss": 0}, Message("assistant", "2", False)),
    "loss null": ({"loss": None}, Message("assistant", "2")),
    "either": ({"weight": 1, "loss": False}, Message("assistant", "2", False)),
    "name": ({"name": "ann"}, Message("assistant", "2", name="ann")),
    "thought": ({"reasoning_content": "hm"}, Message("assistant", "2", reasoning="hm")),
    "thought of vLLM": ({"reasoning": "hm"}, Message("assistant", "2", reasoning="hm")),
    "thought of GPT-OSS": ({"thinking": "hm", "reasoning": None}, Message("assistant", "2", reasoning="hm")),
    "thought under two names": ({"thinking": "hm", "reasoning_content": "oh"}, Message("assistant", "2", reasoning="oh")),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_what_an_answer_may_carry(case: str) -> None:
    keys, wanted = ANSWERS[case]
    given = {"messages": [{**ASK, "name": "bob"}, {"role": "assistant", "content": "2", **keys}, ASK, SAY]}
    assert found(given) == Conversation((Message("user", "1", name="bob"), wanted, ASKED, SAID), HERE)


def test_loss_in_sharegpt() -> None:
    turns = [{"from": "human", "value": "1"}, {"from": "gpt", "value": "2", "loss": False}, {"from": "human", "value": "1"},
             {"from": "gpt", "value": "4"}]
    assert found({"conversations": turns}) == Conversation((ASKED, Message("assistant", "2", False), ASKED, SAID), HERE)


def test_refusal_is_an_answer() -> None:
    assert found({"messages": [ASK, {"role": "assistant", "content": None, "refusal": "no"}]}) == Conversation(
        (ASKED, Message("assistant", "no")), HERE)


def parts(role: str, *content: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"role": role, "content": [{"type": kind, "value": value} for kind, value in content], **more}


def test_messages_in_parts() -> None:
    values = {"messages": [
        parts("system", ("text", "s")), parts("user", ("text", "1"), loss_weight=0.0),
        parts("assistant", ("reasoning", "hm"), ("text", "so"), ("tool_call", '{"name": "f", "arguments": {"a": 1}}'), loss_weight=0.0),
        parts("tool", ("tool_result", "r")), parts("assistant", ("text", "4"), loss_weight=1.0)],
        "tools": '[{"name": "f"}]'}
    assert found(values) == Conversation(
        (Message("system", "s"), ASKED, Message("assistant", "so", False, "hm", (F,)), Message("tool", "r"), SAID), HERE,
        ({"type": "function", "function": {"name": "f"}},))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "loss": ({"messages": [ASK, {**SAY, "loss": "no"}]}, "messages[1].loss: 0 or 1 wanted, found string"),
    "weight": ({"messages": [ASK, {**SAY, "weight": 2}]}, "messages[1].weight: 0 or 1 wanted, found integer 2"),
    "weight true": ({"messages": [ASK, {**SAY, "weight": True}]}, "messages[1].weight: 0 or 1 wanted, found boolean true"),
    "no content": ({"messages": [ASK, {"role": "assistant"}]}, "messages[1].content: string wanted, found null"),
    "calls": ({"messages": [ASK, {"role": "assistant", "tool_calls": {}}]}, "messages[1].tool_calls: array wanted, found object"),
    "calls not JSON": ({"messages": [ASK, {"role": "assistant", "tool_calls": "f()"}]},
                       "messages[1].tool_calls: the string is not JSON: expecting value"),
    "name": ({"messages": [{**ASK, "name": 3}, SAY]}, "messages[0].name: string wanted, found integer 3"),
    "call in content": ({"messages": [ASK, {"role": "tool_call", "content": "f()"}]},
                        "messages[1].content: the string is not JSON: expecting value"),
    "image part": ({"messages": [parts("user", ("image_url", "x.png")), parts("assistant", ("text", "4"))]},
                   "messages[0].content[0].type: no part that the user can say in training, found 'image_url'"),
    "call by the user": ({"messages": [parts("user", ("tool_call", "{}")), parts("assistant", ("text", "4"))]},
                         "messages[0].content[0].type: no part that the user can say in training, found 'tool_call'"),
    "half a weight": ({"messages": [parts("user", ("text", "1")), parts("assistant", ("text", "4"), loss_weight=0.5)]},
                      "messages[1].loss_weight: 0 or 1 wanted, found number 0.5"),
    "value": ({"messages": [{"role": "user", "content": [{"type": "text", "value": 1}]}]},
              "messages[0].content[0].value: string wanted, found integer 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_types_name_line_and_key(case: str) -> None:
    values, message = WRONG[case]
    with pytest.raises(InputError) as caught:
        found(values)
    assert caught.value.line() == f"rows.jsonl:6: {message}; correct the row, or take it out"


def test_unknown_role_in_parts() -> None:
    assert found({"messages": [parts("wizard", ("text", "1"))]}) == Refusal(
        "unknown role", "turn 1 is `wizard`; known: system, user, assistant, tool")


def test_nothing_is_changed_on_the_way() -> None:
    """A row that is whole has no note in the audit."""
    layout = detect({"messages": [ASK, SAY]})
    assert layout is not None
    assert convert(Row({"messages": [ASK, SAY]}, HERE), layout) == Converted(Conversation((ASKED, SAID), HERE), ())

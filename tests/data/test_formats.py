"""Rows of every format to records, refusals and errors. Oracle: the records are written out by hand from the formats' rules."""

import json
from dataclasses import replace

import pytest

from tunewright.data.formats.convert import convert, detect
from tunewright.data.formats.fields import Converted, Refusal
from tunewright.data.formats.layout import Layout, layout
from tunewright.data.json_rows import Row
from tunewright.data.records import Conversation, Message, Origin, Text, ToolCall
from tunewright.errors import InputError

HERE = Origin("rows.jsonl", 5, 6)
EXTRAS = {"history": "history", "system": "system", "tools": "tools"}
ALPACA = layout("alpaca", EXTRAS)
SHAREGPT = layout("sharegpt", {"system": "system", "tools": "tools"})
OPENAI = layout("openai", {"system": "system"})
SEARCH = {"name": "search", "description": "Find.", "parameters": {"type": "object", "properties": {}}}
WRAPPED = {"type": "function", "function": SEARCH}
CALL = ToolCall("search", {"q": "é"}, '{"q": "é"}')


def turns(*pairs: tuple[str, str]) -> tuple[Message, ...]:
    return tuple(Message(role, content) for role, content in pairs)  # type: ignore[arg-type]


def human(value: str) -> dict[str, str]:
    return {"from": "human", "value": value}


def gpt(value: str) -> dict[str, str]:
    return {"from": "gpt", "value": value}


CONVERSATIONS: dict[str, tuple[Layout, dict[str, object], tuple[Message, ...]]] = {
    "alpaca": (ALPACA, {"instruction": "do", "input": "this", "output": "done"},
               turns(("user", "do\nthis"), ("assistant", "done"))),
    "alpaca, no input": (ALPACA, {"instruction": "do", "output": "done"}, turns(("user", "do"), ("assistant", "done"))),
    "alpaca, null input": (ALPACA, {"instruction": "do", "input": None, "output": "done"},
                           turns(("user", "do"), ("assistant", "done"))),
    "alpaca, only input": (ALPACA, {"instruction": "", "input": "x", "output": "done"},
                           turns(("user", "x"), ("assistant", "done"))),
    "alpaca, all": (ALPACA, {"instruction": "3", "input": "", "output": "4", "system": "s", "history": [["1", "2"]]},
                    turns(("system", "s"), ("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4"))),
    "alpaca, empty system": (ALPACA, {"instruction": "1", "output": "2", "system": "", "history": []},
                             turns(("user", "1"), ("assistant", "2"))),
    "sharegpt": (SHAREGPT, {"conversations": [human("1"), gpt("2"), human("3"), gpt("4")]},
                 turns(("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4"))),
    "sharegpt, system in both": (SHAREGPT, {"conversations": [{"from": "system", "value": "a"}, human("1"), gpt("2")], "system": " a"},
                                   turns(("system", "a"), ("user", "1"), ("assistant", "2"))),
    "sharegpt, system column": (SHAREGPT, {"conversations": [human("1"), gpt("2")], "system": "b"},
                                turns(("system", "b"), ("user", "1"), ("assistant", "2"))),
    "sharegpt, tools": (SHAREGPT, {"conversations": [human("1"),
                                                     {"from": "function_call",
                                                      "value": '{"name": "search", "arguments": {"q": "é"}}'},
                                                     {"from": "observation", "value": "r"}, gpt("4")]},
                        (Message("user", "1"), Message("assistant", "", tool_calls=(CALL,)), Message("tool", "r"),
                         Message("assistant", "4"))),
    "openai": (OPENAI, {"messages": [{"role": "developer", "content": "s"},
                                     {"role": "user", "content": [{"type": "text", "text": "a"},
                                     {"type": "text", "text": "b"}]}, {"role": "assistant", "content": "2"}]},
               turns(("system", "s"), ("user", "ab"), ("assistant", "2"))),
    "openai, weights": (OPENAI, {"messages": [{"role": "user", "content": "1"},
                                              {"role": "assistant", "content": "2", "weight": 0},
                                              {"role": "user", "content": "3"},
                                              {"role": "assistant", "content": "4", "weight": 1}]},
                        (Message("user", "1"), Message("assistant", "2", trained=False), Message("user", "3"),
                         Message("assistant", "4"))),
    "openai, calls": (OPENAI, {"messages": [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "x", "type": "function", "function": {"name": "search", "arguments": '{"q":"é"}'}},
            {"id": "y", "type": "function", "function": {"name": "search", "arguments": {"q": "é"}}}]},
        {"role": "tool", "content": "r", "tool_call_id": "x"}, {"role": "tool", "content": "s", "tool_call_id": "y"},
        {"role": "assistant", "content": "4", "reasoning_content": "hm"}]},
        (Message("user", "1"),
         Message("assistant", "", tool_calls=(ToolCall("search", {"q": "é"}, '{"q":"é"}', "x"), replace(CALL, id="y"))),
         Message("tool", "r", call_id="x"), Message("tool", "s", call_id="y"), Message("assistant", "4", reasoning="hm"))),
    "openai, older call": (OPENAI, {"messages": [{"role": "user", "content": "1"},
                                                 {"role": "assistant",
                                                  "function_call": {"name": "f", "arguments": "{}"}}]},
                           (Message("user", "1"), Message("assistant", "", tool_calls=(ToolCall("f", {}, "{}"),)))),
    "table": (layout("table"), {"category": "c", "human": "1", "assistant": "2"},
              turns(("user", "1"), ("assistant", "2"))),
    "firefly": (layout("table"), {"conversation": [{"human": "1", "assistant": "2"}, {"human": "3", "assistant": "4"}]},
                turns(("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4"))),
    "prompt and completion": (layout("prompt_completion"), {"prompt": "1", "completion": "2"},
                              turns(("user", "1"), ("assistant", "2"))),
    "messages in both": (layout("prompt_completion"), {
        "prompt": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"},
                   {"role": "user", "content": "3"}],
        "completion": [{"role": "assistant", "content": "4"}]},
        (Message("user", "1"), Message("assistant", "2", trained=False), Message("user", "3"),
         Message("assistant", "4"))),
}


@pytest.mark.parametrize("case", CONVERSATIONS)
def test_conversations(case: str) -> None:
    form, values, messages = CONVERSATIONS[case]
    assert convert(Row(values, HERE), form) == Converted(Conversation(messages, HERE))


def test_the_system_turn_wins_over_the_column_and_it_is_told() -> None:
    """As in LLaMA-Factory, but not without a word: the other prompt is lost."""
    values = {"conversations": [{"from": "system", "value": "a"}, human("1"), gpt("2")], "system": "b"}
    assert convert(Row(values, HERE), SHAREGPT) == Converted(
        Conversation(turns(("system", "a"), ("user", "1"), ("assistant", "2")), HERE),
        ("system is not read: the messages begin with another system prompt",))


@pytest.mark.parametrize("given", [None, "", "[]", "{}", "null", [], {}])
def test_no_tools_in_every_form(given: object) -> None:
    outcome = convert(Row({"messages": [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}], "tools": given}, HERE),
                      OPENAI)
    assert outcome == Converted(Conversation(turns(("user", "1"), ("assistant", "2")), HERE))


@pytest.mark.parametrize("given", [[SEARCH], [WRAPPED], SEARCH, json.dumps([SEARCH]), json.dumps(WRAPPED)])
def test_tools_in_every_form(given: object) -> None:
    for form, values in ((ALPACA, {"instruction": "1", "output": "2"}),
                         (OPENAI, {"messages": [{"role": "user", "content": "1"},
                         {"role": "assistant", "content": "2"}]}),
                         (SHAREGPT, {"conversations": [human("1"), gpt("2")]})):
        outcome = convert(Row({**values, "tools": given}, HERE), form)
        assert isinstance(outcome, Converted)
        assert outcome.record == Conversation(turns(("user", "1"), ("assistant", "2")), HERE, (WRAPPED,))


def test_documents() -> None:
    assert convert(Row({"text": " a\n"}, HERE), layout("text")) == Converted(Text(" a\n", HERE))
    assert convert(Row({"body": "\n "}, HERE), layout("text", {"prompt": "body"})) == Refusal("empty document")


def test_role_tags_can_be_renamed() -> None:
    form = layout("sharegpt", {"messages": "turns"}, {"role_tag": "who", "content_tag": "says", "user_tag": "me"})
    values = {"turns": [{"who": "me", "says": "1"}, {"who": "gpt", "says": "2"}]}
    assert convert(Row(values, HERE), form) == Converted(Conversation(turns(("user", "1"), ("assistant", "2")), HERE))


def test_empty_answer_is_context_only() -> None:
    outcome = convert(Row({"conversations": [human("1"), gpt(" "), human("3"), gpt("4")]}, HERE), SHAREGPT)
    assert outcome == Converted(Conversation((Message("user", "1"), Message("assistant", " ", trained=False),
                                              Message("user", "3"),
                                              Message("assistant", "4")), HERE),
                                              ("turn 2 is an empty answer: not trained",))


SYSTEM = {"from": "system", "value": "s"}
OUT_OF_ORDER = {
    "two questions": ([human("1"), human("2"), gpt("3")], "turn 2 is user after user"),
    "two answers": ([human("1"), gpt("2"), gpt("3")], "turn 3 is assistant after assistant"),
    "answer first": ([gpt("1")], "turn 1 is assistant but user comes first"),
    "no answer": ([human("1"), gpt("2"), human("3")], "the last turn is user: no answer follows"),
    "system in between": ([human("1"), gpt("2"), SYSTEM, human("3"), gpt("4")], "turn 3 is system after assistant"),
    "answer after system": ([SYSTEM, gpt("2")], "turn 2 is assistant but user comes first"),
    "only system": ([SYSTEM], "there are no turns"),
    "nothing": ([], "there are no turns"),
    "result without call": ([{"from": "observation", "value": "r"}, gpt("2")], "turn 1 is tool but user comes first"),
    "result last": ([human("1"), gpt("2"), {"from": "observation", "value": "r"}],
                    "the last turn is tool: no answer follows"),
}


@pytest.mark.parametrize("case", OUT_OF_ORDER)
def test_turns_out_of_order_are_refused(case: str) -> None:
    conversations, detail = OUT_OF_ORDER[case]
    assert convert(Row({"conversations": conversations}, HERE), SHAREGPT) == Refusal("turns out of order", detail)


REFUSED = {
    "unknown tag": (SHAREGPT, {"conversations": [human("1"), {"from": "bot", "value": "2"}]},
                    Refusal("unknown role", "turn 2 is `bot`; known: human, gpt, system, observation, function_call")),
    "unknown role": (OPENAI, {"messages": [{"role": "usr", "content": "1"}]},
                     Refusal("unknown role", "turn 1 is `usr`; known: user, assistant, system, tool, function, developer, "
                             "tool_call, tool_response")),
    "empty output": (ALPACA, {"instruction": "1", "output": "\n"},
                     Refusal("no trainable token", "every answer is empty or has weight 0")),
    "weights 0": (OPENAI, {"messages": [{"role": "user", "content": "1"},
                                        {"role": "assistant", "content": "2", "weight": 0}]},
                  Refusal("no trainable token", "every answer is empty or has weight 0")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_rows(case: str) -> None:
    form, values, expected = REFUSED[case]
    assert convert(Row(values, HERE), form) == expected


def calling(function: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": "1"},
                         {"role": "assistant", "tool_calls": [{"function": function}]}]}


WRONG = {
    "output int": (ALPACA, {"instruction": "1", "output": 7}, "output: string wanted, found integer 7"),
    "output null": (ALPACA, {"instruction": "1", "output": None}, "output: string wanted, found null"),
    "output missing": (ALPACA, {"instruction": "1", "id": 2}, "output: missing; columns present: instruction, id"),
    "input list": (ALPACA, {"instruction": "1", "input": [], "output": "2"}, "input: string wanted, found array"),
    "system bool": (ALPACA, {"instruction": "1", "output": "2", "system": True},
                    "system: string wanted, found boolean true"),
    "history text": (ALPACA, {"instruction": "1", "output": "2", "history": "x"},
                     "history: array wanted, found string"),
    "history triple": (ALPACA, {"instruction": "1", "output": "2", "history": [["a", "b"], ["a", "b", "c"]]},
                       "history[1]: a pair of question and answer wanted, found 3 entries"),
    "history null": (ALPACA, {"instruction": "1", "output": "2", "history": [["a", None]]},
                     "history[0][1]: string wanted, found null"),
    "tools not JSON": (ALPACA, {"instruction": "1", "output": "2", "tools": "[{"},
                       "tools: the string is not JSON: expecting property name enclosed in double quotes"),
    "tools nameless": (ALPACA, {"instruction": "1", "output": "2", "tools": [{"type": "function"}]},
                       "tools[0].name: string wanted, found null"),
    "turns text": (SHAREGPT, {"conversations": "x"}, "conversations: array wanted, found string"),
    "turn text": (SHAREGPT, {"conversations": ["x"]}, "conversations[0]: object wanted, found string"),
    "value missing": (SHAREGPT, {"conversations": [{"from": "human", "text": "1"}]},
                      "conversations[0].value: missing; keys present: from, text"),
    "value null": (SHAREGPT, {"conversations": [human("1"), {"from": "gpt", "value": None}]},
                   "conversations[1].value: string wanted, found null"),
    "call not JSON": (SHAREGPT, {"conversations": [human("1"), {"from": "function_call", "value": "f(x)"}]},
                      "conversations[1].value: the string is not JSON: expecting value"),
    "content null": (OPENAI, {"messages": [{"role": "user", "content": None}]},
                     "messages[0].content: string wanted, found null"),
    "role missing": (OPENAI, {"messages": [{"content": "x"}]}, "messages[0].role: string wanted, found null"),
    "weight": (OPENAI, {"messages": [{"role": "assistant", "content": "x", "weight": 0.5}]},
               "messages[0].weight: 0 or 1 wanted, found number 0.5"),
    "image": (OPENAI, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
              "messages[0].content[0].type: only text parts can be trained, found 'image_url'"),
    "Anthropic's call": (OPENAI, {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": {}}]}]},
                         "messages[0].content[0].type: only text parts can be trained, found 'tool_use'; write Anthropic's calls as "
                         "OpenAI's: tool_calls of the message"),
    "Anthropic's result": (OPENAI, {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "1"}]}]},
                           "messages[0].content[0].type: only text parts can be trained, found 'tool_result'; write Anthropic's results as "
                           "OpenAI's: messages of role tool, with tool_call_id"),
    "arguments": (OPENAI, calling({"name": "f", "arguments": "[1]"}),
                  "messages[1].tool_calls[0].function.arguments: object wanted, found array"),
    "a key twice in arguments": (OPENAI, calling({"name": "f", "arguments": '{"x": 1, "x": 2}'}),
                                 "messages[1].tool_calls[0].function.arguments: the string is not JSON: the key `x` is there twice in one "
                                 "object"),
    "NaN in arguments": (OPENAI, calling({"name": "f", "arguments": '{"x": NaN}'}), "messages[1].tool_calls[0].function.arguments: the "
                         "string is not JSON: NaN is not JSON; write null or a string"),
    "a number without end": (OPENAI, calling({"name": "f", "arguments": '{"x": 1e999}'}), "messages[1].tool_calls[0].function.arguments: "
                             "the string is not JSON: 1e999 is too large for a number"),
    "call nameless": (OPENAI, calling({"arguments": {}}),
                      "messages[1].tool_calls[0].function.name: string wanted, found null"),
    "table": (layout("table"), {"human": "1", "assistant": 2.5}, "assistant: string wanted, found number 2.5"),
    "firefly": (layout("table"), {"conversation": [{"human": "1"}]},
                "conversation[0].assistant: string wanted, found null"),
    "completion": (layout("prompt_completion"), {"prompt": "1"}, "completion: missing; columns present: prompt"),
    "text": (layout("text"), {"text": {"a": 1}}, "text: string wanted, found object"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_types_name_line_and_key(case: str) -> None:
    form, values, message = WRONG[case]
    with pytest.raises(InputError) as caught:
        convert(Row(values, HERE), form)
    assert caught.value.line() == f"rows.jsonl:6: {message}" + ("" if "; write A" in message else "; correct the row, or take it out")


def test_detection_leaves_unknown_rows_alone() -> None:
    for values in ({}, {"x": 1}, {"messages": []}, {"messages": "x"}, {"conversations": [{"who": "me"}]},
                   {"instruction": "x"}):
        assert detect(values) is None

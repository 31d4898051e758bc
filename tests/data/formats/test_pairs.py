"""Pairs of answers in every form. Oracle: the prompt and both answers are written out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tunewright.data.formats.convert import convert, detect
from tunewright.data.formats.fields import Converted, Outcome, Refusal
from tunewright.data.formats.layout import Layout, layout, ranked
from tunewright.data.json_rows import Row
from tunewright.data.records import Message, Origin, Preference, ToolCall
from tunewright.errors import InputError

HERE = Origin("rows.jsonl", 5, 6)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def turn(who: str, text: str) -> dict[str, str]:
    return {"from": who, "value": text}


def turns(*pairs: tuple[str, str]) -> tuple[Message, ...]:
    return tuple(Message(role, content) for role, content in pairs)  # type: ignore[arg-type]


Q, GOOD, BAD = turns(("user", "q")), turns(("assistant", "good")), turns(("assistant", "bad"))
LONG = turns(("user", "a"), ("assistant", "b"), ("user", "q"))
SYSTEM = turns(("system", "s"), ("user", "q"))
SHAREGPT = ranked(layout("sharegpt"))
OPENAI = ranked(layout("openai"))
ALPACA = ranked(layout("alpaca", {"system": "system", "history": "history"}))
CALL = Message("assistant", "", tool_calls=(ToolCall("f", {}, "{}"),))

PAIRS: dict[str, tuple[Layout | None, dict[str, Any], tuple[Message, ...]]] = {
    "alpaca": (None, {"instruction": "q", "input": "", "chosen": "good", "rejected": "bad"}, Q),
    "alpaca declared": (ALPACA, {"instruction": "q", "chosen": "good", "rejected": "bad", "output": "unread"}, Q),
    "alpaca, all": (ALPACA, {"instruction": "x", "input": "y", "history": [["a", "b"]], "system": "s", "chosen": "good", "rejected": "bad"},
                    turns(("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "x\ny"))),
    "alpaca with messages": (ALPACA, {"instruction": "q", "chosen": said("good"), "rejected": turn("gpt", "bad")}, Q),
    "alpaca with lists": (ALPACA, {"instruction": "q", "chosen": [said("good")], "rejected": [turn("gpt", "bad")]}, Q),
    "question": (None, {"question": "q", "chosen": "good", "rejected": "bad", "system": "s"}, SYSTEM),
    "sharegpt": (SHAREGPT, {"conversations": [turn("human", "q")], "chosen": turn("gpt", "good"), "rejected": turn("gpt", "bad")}, Q),
    "sharegpt detected": (None, {"conversations": [turn("human", "a"), turn("gpt", "b"), turn("human", "q")],
                                 "chosen": turn("gpt", "good"), "rejected": turn("gpt", "bad")}, LONG),
    "sharegpt with texts": (SHAREGPT, {"conversations": [turn("human", "q")], "chosen": "good", "rejected": "bad"}, Q),
    "sharegpt whole": (None, {"chosen": [turn("human", "q"), turn("gpt", "good")],
                              "rejected": [turn("human", "q"), turn("gpt", "bad")]}, Q),
    "openai": (OPENAI, {"messages": [user("q")], "chosen": said("good"), "rejected": said("bad")}, Q),
    "openai with lists": (None, {"messages": [user("q")], "chosen": [said("good")], "rejected": [said("bad")]}, Q),
    "TRL, texts": (None, {"prompt": "q", "chosen": "good", "rejected": "bad"}, Q),
    "TRL, messages": (None, {"prompt": [user("a"), said("b"), user("q")], "chosen": [said("good")], "rejected": [said("bad")]}, LONG),
    "TRL, system": (None, {"prompt": [{"role": "system", "content": "s"}, user("q")], "chosen": [said("good")], "rejected": [said("bad")]},
                    SYSTEM),
    "TRL, whole conversations": (None, {"chosen": [user("q"), said("good")], "rejected": [user("q"), said("bad")]}, Q),
    "whole, longer": (None, {"chosen": [user("a"), said("b"), user("q"), said("good")],
                             "rejected": [user("a"), said("b"), user("q"), said("bad")]}, LONG),
    "whole beside their prompt": (None, {"prompt": "q", "chosen": [user("q"), said("good")], "rejected": [user("q"), said("bad")]}, Q),
    "system column before whole": (None, {"prompt": None, "system": "s", "chosen": [user("q"), said("good")],
                                          "rejected": [user("q"), said("bad")]}, Q),
    "one text in two": (None, {"chosen": "q good", "rejected": "q bad"}, Q),
    "OpenAI's tuning files": (None, {"input": {"messages": [user("q")], "parallel_tool_calls": True}, "preferred_output": [said("good")],
                                     "non_preferred_output": [said("bad")]}, Q),
    "ms-swift, messages": (None, {"messages": [user("q"), said("good")], "rejected_response": "bad"}, Q),
    "ms-swift, longer": (None, {"messages": [user("a"), said("b"), user("q"), said("good")], "rejected_response": "bad"}, LONG),
    "ms-swift, whole": (None, {"messages": [user("q"), said("good")], "rejected_messages": [user("q"), said("bad")]}, Q),
    "ms-swift, columns": (None, {"query": "q", "response": "good", "rejected_response": "bad", "history": [["a", "b"]]}, LONG),
    "parts": (None, {"chosen_messages": [{"role": "user", "content": [{"type": "text", "value": "q"}]},
                                         {"role": "assistant", "content": [{"type": "text", "value": "good"}]}],
                     "rejected_messages": [{"role": "user", "content": [{"type": "text", "value": "q"}]},
                                           {"role": "assistant", "content": [{"type": "text", "value": "bad"}]}]}, Q),
    "messages under those names": (None, {"chosen_messages": [user("q"), said("good")], "rejected_messages": [user("q"), said("bad")]}, Q),
}


def outcome(values: dict[str, Any], form: Layout | None = None) -> Outcome:
    form = form or detect(values)
    assert form is not None
    assert form.kind == "preference"
    return convert(Row(values, HERE), form)


@pytest.mark.parametrize("case", PAIRS)
def test_pairs(case: str) -> None:
    form, values, prompt = PAIRS[case]
    assert outcome(values, form) == Converted(Preference(prompt, GOOD, BAD, HERE))


def test_answers_may_be_calls_and_several_turns() -> None:
    calling = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    result = {"role": "tool", "content": "r"}
    values = {"prompt": [user("q")], "chosen": [calling, result, said("good")], "rejected": [said("bad")], "tools": [{"name": "f"}]}
    assert outcome(values) == Converted(Preference(
        Q, (CALL, Message("tool", "r"), *GOOD), BAD, HERE, ({"type": "function", "function": {"name": "f"}},)))


def test_a_call_that_both_share_is_prompt_with_its_result() -> None:
    begin = [user("q"), {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}, {"role": "tool", "content": "r"}]
    values = {"chosen": [*begin, said("good")], "rejected": [*begin, said("bad")]}
    assert outcome(values) == Converted(Preference((*Q, CALL, Message("tool", "r")), GOOD, BAD, HERE))


def test_an_answer_that_both_begin_with_is_no_prompt() -> None:
    """The prompt ends with the last question that both share; what follows is each side's own."""
    values = {"chosen": [user("q"), said("x"), user("y"), said("good")], "rejected": [user("q"), said("x"), user("z"), said("bad")]}
    assert outcome(values) == Converted(Preference(
        Q, turns(("assistant", "x"), ("user", "y"), ("assistant", "good")), turns(("assistant", "x"), ("user", "z"), ("assistant", "bad")),
        HERE))


def test_another_prompt_beside_whole_conversations_is_told() -> None:
    values = {"prompt": "other", "chosen": [user("q"), said("good")], "rejected": [user("q"), said("bad")]}
    assert outcome(values) == Converted(Preference(Q, GOOD, BAD, HERE), (
        "the prompt is not read: chosen and rejected are whole conversations with another one",))


def test_an_empty_answer_stays() -> None:
    """Which of two answers is better can be that one says nothing."""
    assert outcome({"prompt": "q", "chosen": "good", "rejected": ""}) == Converted(Preference(Q, GOOD, turns(("assistant", "")), HERE))


REFUSED: dict[str, tuple[Layout | None, dict[str, Any], Refusal]] = {
    "same": (None, {"prompt": "q", "chosen": "a", "rejected": "a"}, Refusal("chosen and rejected are the same")),
    "nothing shared": (None, {"chosen": [user("q"), said("good")], "rejected": [user("r"), said("bad")]},
                       Refusal("chosen and rejected share no prompt", "they differ from their first turn on")),
    "no word shared": (None, {"chosen": "good q", "rejected": "bad q"},
                       Refusal("chosen and rejected share no prompt", "they differ from their first word on")),
    "user's answer": (SHAREGPT, {"conversations": [turn("human", "q")], "chosen": turn("human", "good"), "rejected": turn("gpt", "bad")},
                      Refusal("turns out of order", "chosen: turn 2 is user after user")),
    "prompt with answer": (SHAREGPT, {"conversations": [turn("human", "q"), turn("gpt", "x")], "chosen": turn("gpt", "good"),
                                      "rejected": turn("gpt", "bad")},
                           Refusal("turns out of order", "chosen: turn 3 is assistant after assistant")),
    "no prompt": (None, {"messages": [said("good")], "rejected_response": "bad"},
                  Refusal("turns out of order", "chosen: turn 1 is assistant but user comes first")),
    "no answer": (None, {"prompt": "q", "chosen": [], "rejected": [said("bad")]},
                  Refusal("turns out of order", "chosen: the last turn is user: no answer follows")),
    "unknown role": (None, {"prompt": "q", "chosen": [{"role": "bot", "content": "x"}], "rejected": "bad"},
                     Refusal("unknown role", "turn 1 is `bot`; known: user, assistant, system, tool, function, developer, tool_call, "
                                             "tool_response")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_pairs_left_out(case: str) -> None:
    form, values, expected = REFUSED[case]
    assert outcome(values, form) == expected


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "rejected missing": ({"prompt": "q", "chosen": "a"}, "rejected: missing; columns present: prompt, chosen"),
    "chosen a number": ({"prompt": "q", "chosen": 3, "rejected": "b"}, "chosen: string, object or array wanted, found integer 3"),
    "rejected null": ({"prompt": "q", "chosen": "a", "rejected": None}, "rejected: string, object or array wanted, found null"),
    "message null": ({"prompt": "q", "chosen": [None], "rejected": "b"}, "chosen[0]: object wanted, found null"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_types_name_line_and_key(case: str) -> None:
    values, message = WRONG[case]
    with pytest.raises(InputError) as caught:
        outcome(values, layout("preference"))
    assert caught.value.line() == f"rows.jsonl:6: {message}; correct the row, or take it out"


def test_input_of_another_type() -> None:
    with pytest.raises(InputError) as caught:
        outcome({"input": {"messages": "q"}, "preferred_output": [said("a")], "non_preferred_output": [said("b")]})
    assert caught.value.line() == "rows.jsonl:6: input.messages: array wanted, found string; correct the row, or take it out"

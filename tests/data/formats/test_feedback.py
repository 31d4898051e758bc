"""Answers that are called good or bad, and prompts. Oracle: records written out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tunewright.data.formats.convert import convert, detect
from tunewright.data.formats.fields import Converted, Outcome, Refusal
from tunewright.data.formats.layout import layout
from tunewright.data.json_rows import Row
from tunewright.data.records import Conversation, Feedback, Message, Origin, Prompt
from tunewright.errors import InputError

HERE = Origin("rows.jsonl", 5, 6)
ASKED, SAID = Message("user", "q"), Message("assistant", "a")
MESSAGES = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def outcome(values: dict[str, Any], stage: str = "kto") -> Outcome:
    form = detect(values, stage)
    assert form is not None
    return convert(Row(values, HERE), form)


ROWS: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": "q", "input": "", "output": "a"},
    "sharegpt": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "openai": {"messages": MESSAGES},
    "TRL": {"prompt": "q", "completion": "a"},
    "TRL, messages": {"prompt": MESSAGES[:1], "completion": MESSAGES[1:]},
    "ms-swift": {"query": "q", "response": "a"},
    "table": {"human": "q", "assistant": "a"},
}


@pytest.mark.parametrize("column", ["label", "kto_tag"])
@pytest.mark.parametrize("desirable", [True, False])
@pytest.mark.parametrize("case", ROWS)
def test_a_boolean_beside_an_answer(case: str, desirable: bool, column: str) -> None:
    for stage in ("kto", "sft"):
        assert outcome({**ROWS[case], column: desirable}, stage) == Converted(Feedback((ASKED, SAID), desirable, HERE))


@pytest.mark.parametrize(("written", "meant"), [
    (1, True), (0, False), ("true", True), ("false", False), ("True", True), (" FALSE ", False), ("1", True), ("0", False)])
def test_marks_in_other_words(written: object, meant: bool) -> None:
    assert outcome({**ROWS["alpaca"], "label": written}) == Converted(Feedback((ASKED, SAID), meant, HERE))


@pytest.mark.parametrize("label", [1, 0, "true", "3", None])
def test_other_labels_may_be_classes(label: object) -> None:
    """In another stage only a boolean makes feedback of a row."""
    assert outcome({**ROWS["alpaca"], "label": label}, "sft") == Converted(Conversation((ASKED, SAID), HERE))


@pytest.mark.parametrize(("mark", "found"), [
    (2, "integer 2"), (-1, "integer -1"), (0.5, "number 0.5"), (1.0, "number 1.0"), ("yes", "string"), ("", "string"), (None, "null"),
    ([], "array")])
def test_marks_that_say_nothing(mark: object, found: str) -> None:
    with pytest.raises(InputError) as caught:
        outcome({**ROWS["alpaca"], "label": mark})
    assert caught.value.line() == f"rows.jsonl:6: label: true or false wanted, found {found}; correct the row, or take it out"


def test_a_row_without_the_column() -> None:
    with pytest.raises(InputError) as caught:
        convert(Row({"messages": MESSAGES}, HERE), layout("openai", {"kto_tag": "good"}))
    assert caught.value.line() == "rows.jsonl:6: good: missing; columns present: messages; correct the row, or take it out"


def test_an_empty_answer_keeps_its_mark() -> None:
    for mark in (True, False):
        assert outcome({"instruction": "q", "output": "", "label": mark}) == Converted(
            Feedback((ASKED, Message("assistant", "")), mark, HERE))


def test_order_is_checked() -> None:
    assert outcome({"messages": MESSAGES[:1], "label": True}) == Refusal(
        "turns out of order", "the last turn is user: no answer follows")


PROMPTS: dict[str, tuple[dict[str, Any], tuple[Message, ...]]] = {
    "text": ({"prompt": "q"}, (ASKED,)),
    "messages": ({"prompt": MESSAGES[:1]}, (ASKED,)),
    "system": ({"prompt": [{"role": "system", "content": "s"}, *MESSAGES[:1]]}, (Message("system", "s"), ASKED)),
    "with an answer": ({"prompt": MESSAGES}, (ASKED,)),
    "longer": ({"prompt": [*MESSAGES, *MESSAGES[:1]]}, (ASKED, SAID, ASKED)),
}


@pytest.mark.parametrize("case", PROMPTS)
def test_prompts(case: str) -> None:
    values, messages = PROMPTS[case]
    assert outcome(values, "ppo") == Converted(Prompt(messages, HERE))


def test_prompts_out_of_order() -> None:
    assert outcome({"prompt": [MESSAGES[0], MESSAGES[0]]}, "ppo") == Refusal("turns out of order", "turn 2 is user after user")
    assert outcome({"prompt": []}, "ppo") == Refusal("turns out of order", "turn 1 is assistant but user comes first")

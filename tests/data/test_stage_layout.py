"""Which rows a stage trains on, and the line that says how they are read. Oracle: lines written out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunewright.data.formats.fields import Converted, Refusal
from tunewright.data.records import Prompt
from tunewright.data.sources import locate, outcomes, settle
from tunewright.errors import InputError

MESSAGES = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
ROWS: dict[str, dict[str, Any]] = {
    "conversations": {"messages": MESSAGES}, "pairs of answers": {"prompt": "q", "chosen": "a", "rejected": "b"},
    "answers that are called good or bad": {"prompt": "q", "completion": "a", "label": True}, "prompts without answers": {"prompt": "q"},
    "documents": {"text": "a"}, "tokens": {"input_ids": [1, 2], "labels": [-100, 2]},
}
MENDS = {
    "conversations": "set stage: sft, or give rows of that kind",
    "pairs of answers": "set stage: dpo or rm, or name the better answers alone: {file_name: ..., formatting: alpaca, columns: "
                        "{prompt: ..., response: chosen}}",
    "answers that are called good or bad": "set stage: kto, or declare the formatting without kto_tag",
    "prompts without answers": "set stage: ppo, or give rows with answers",
    "documents": "set stage: pt, or give rows with questions and answers", "tokens": "set stage: sft or pt, or give rows of text",
}
TRAINS = {"sft": ("conversations", "tokens"), "rm": ("pairs of answers",), "dpo": ("pairs of answers",),
          "kto": ("answers that are called good or bad",), "ppo": ("prompts without answers", "conversations"),
          "grpo": ("prompts without answers", "conversations")}


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def line(stage: str, row: dict[str, Any], spec: Any = "a.jsonl") -> str:
    Path("a.jsonl").write_text(json.dumps(row) + "\n")
    return settle(locate(spec, Path("data")), stage).line


@pytest.mark.parametrize("stage", TRAINS)
@pytest.mark.parametrize("kind", ROWS)
def test_a_stage_refuses_what_it_does_not_train_on(stage: str, kind: str) -> None:
    """In KTO, rows that are conversations lack the mark; what is wrong is their kind, not a column."""
    if kind in TRAINS[stage]:
        assert line(stage, ROWS[kind]).startswith("a.jsonl: ")
        return
    with pytest.raises(InputError) as caught:
        line(stage, ROWS[kind])
    assert caught.value.line() == (
        f"a.jsonl:1: stage {stage} trains on {TRAINS[stage][0]}, but these rows are {kind}; {MENDS[kind]}")


SAID = {
    "pair": ("dpo", ROWS["pairs of answers"], "preference (prompt=prompt, chosen=chosen, rejected=rejected, tools=tools, system=system), "
             "detected from the first row; rows are pairs of answers"),
    "feedback": ("kto", {**ROWS["answers that are called good or bad"], "id": 1},
                 "prompt_completion (prompt=prompt, response=completion, tools=tools, system=system, kto_tag=label), "
                 "detected from the first row; rows are answers that are called good or bad; columns not read: id"),
    "prompts": ("ppo", {"messages": MESSAGES}, "openai (messages=messages, tools=tools, system=system), detected from the first row; "
                "rows are prompts without answers"),
    "prompts with columns": ("grpo", {"prompt": "q", "wanted": "a"}, "prompt_only (prompt=prompt, tools=tools, system=system), detected "
                             "from the first row; rows are prompts without answers; columns for reward functions alone: wanted"),
    "tokens": ("sft", ROWS["tokens"], "tokens (ids=input_ids, labels=labels), detected from the first row"),
    "tokens in pt": ("pt", {"input_ids": [1], "n": 1}, "tokens (ids=input_ids), detected from the first row; columns not read: n"),
    "keys": ("sft", {"messages": [MESSAGES[0], {**MESSAGES[1], "mood": "x", "audio": None}]},
             "openai (messages=messages, tools=tools, system=system), detected from the first row; keys of messages not read: mood"),
}


@pytest.mark.parametrize("case", SAID)
def test_the_line_says_how_rows_are_read(case: str) -> None:
    stage, row, said = SAID[case]
    assert line(stage, row) == f"a.jsonl: {said}"


def test_the_mend_for_pairs_works() -> None:
    """A refused set of pairs is trained on its better answers with the mapping that the refusal names."""
    spec = {"file_name": "a.jsonl", "formatting": "alpaca", "columns": {"prompt": "prompt", "response": "chosen"}}
    assert line("sft", ROWS["pairs of answers"], spec) == (
        "a.jsonl: alpaca (prompt=prompt, query=input, response=chosen), as declared; columns not read: rejected")


def test_tokens_without_labels_need_pretraining() -> None:
    with pytest.raises(InputError) as caught:
        line("sft", {"input_ids": [1, 2]})
    assert caught.value.line() == ("a.jsonl:1: labels: missing; columns present: input_ids; "
                                   "give labels, -100 for tokens that are not trained, or set stage: pt to train on every token")


def test_prompts_of_conversations() -> None:
    Path("a.jsonl").write_text(json.dumps({"messages": MESSAGES}) + "\n")
    found = [one for _, one in outcomes(settle(locate("a.jsonl", Path("data")), "ppo"))]
    assert [isinstance(one, Converted) and isinstance(one.record, Prompt) and len(one.record.messages) for one in found] == [1]


@pytest.mark.parametrize(("columns", "name"), [({"chosen": "better", "rejected": "rejected"}, "better"),
                                               ({"chosen": "chosen", "rejected": "worse"}, "worse")])
def test_a_column_of_pairs_that_is_not_there(columns: dict[str, str], name: str) -> None:
    key = "chosen" if name == "better" else "rejected"
    with pytest.raises(InputError) as caught:
        line("dpo", {"instruction": "q", "chosen": "a", "rejected": "b"},
             {"file_name": "a.jsonl", "formatting": "alpaca", "ranking": True, "columns": columns})
    assert caught.value.line() == (f"a.jsonl:1: {name} (columns.{key} of a.jsonl): missing; "
                                   "columns present: instruction, chosen, rejected; the rows look like formatting: alpaca")


def settled(*rows: dict[str, Any], stage: str = "sft") -> tuple[str, list[Any]]:
    """The line after the name, and what became of each row."""
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = settle(locate("a.jsonl", Path("data")), stage)
    return found.line.removeprefix("a.jsonl: "), [outcome for _, outcome in outcomes(found)]


def test_a_first_row_that_says_nothing_does_not_decide() -> None:
    """It is left out like any other; the second one has the format."""
    line, found = settled({"messages": []}, {"messages": MESSAGES})
    assert line == "openai (messages=messages, tools=tools, system=system), detected from a.jsonl:2"
    assert found[0] == Refusal("turns out of order", "there are no turns")
    assert isinstance(found[1], Converted)


def test_what_only_later_rows_have_is_told() -> None:
    """In the line if one of the first 16 rows has it; else in the audit of the row. Null is nothing."""
    usual = {"messages": [MESSAGES[0], {**MESSAGES[1], "mood": "x"}], "id": 1}
    odd = {"messages": [MESSAGES[0], {**MESSAGES[1], "mood": "x", "audio": None, "score": 3}], "id": 2, "source": "web", "note": None}
    line, found = settled(usual, {**usual, "date": "today"}, *[usual] * 14, odd)
    assert line == ("openai (messages=messages, tools=tools, system=system), detected from the first row; columns not read: id, date; "
                    "keys of messages not read: mood")
    assert [one.changes for one in found] == [()] * 16 + [("key of messages not read: score", "column not read: source")]


def test_many_columns_that_are_not_read_are_counted() -> None:
    """The reason stays short."""
    _, found = settled(*[{"text": "a"}] * 16, {"text": "b", **{f"c{number}": 1 for number in range(5)}}, stage="pt")
    assert found[-1].changes == ("columns not read: c0, c1, c2 and 2 more",)


def test_a_broken_row_among_the_first_is_told_in_its_turn() -> None:
    """Rows before it are read."""
    Path("a.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n{"text"}\n')
    found = settle(locate("a.jsonl", Path("data")), "pt")
    rows = outcomes(found)
    assert [type(next(rows)[1]) for _ in range(2)] == [Converted, Converted]
    with pytest.raises(InputError, match=r"^a\.jsonl:3:8: not valid JSON"):
        next(rows)


USUAL = {
    "Dolly": ({"instruction": "q", "context": "c", "response": "a", "category": "x"},
              "alpaca (prompt=instruction, query=context, response=response, history=history, system=system, tools=tools), detected from "
              "the first row; columns not read: category", ("q\nc", "a")),
    "Dolly without context": ({"instruction": "q", "context": "", "response": "a"},
                              "alpaca (prompt=instruction, query=context, response=response, history=history, system=system, tools=tools), "
                              "detected from the first row", ("q", "a")),
    "an input is the query": ({"instruction": "q", "input": "i", "context": "c", "output": "a"},
                              "alpaca (prompt=instruction, query=input, response=output, history=history, system=system, tools=tools), "
                              "detected from the first row; columns not read: context", ("q\ni", "a")),
    "MATH": ({"problem": "q", "solution": "a"}, "alpaca (prompt=problem, query=input, response=solution, history=history, system=system, "
             "tools=tools), detected from the first row", ("q", "a")),
    "an input without instruction": ({"input": "q", "output": "a"}, "alpaca (prompt=input, response=output, history=history, "
                                     "system=system, tools=tools), detected from the first row", ("q", "a")),
    "OpenAI's roles in ShareGPT's keys": (
        {"conversations": [{"from": "user", "value": "q"}, {"from": "assistant", "value": "a"}]},
        "sharegpt (messages=conversations, system=system, tools=tools, user_tag=user, assistant_tag=assistant, observation_tag=tool), "
        "detected from the first row", ("q", "a")),
    "ShareGPT's roles in OpenAI's keys": (
        {"messages": [{"role": "system", "content": ""}, {"role": "human", "content": "q"}, {"role": "gpt", "content": "a"}]},
        "openai (messages=messages, tools=tools, system=system, user_tag=human, assistant_tag=gpt, observation_tag=observation), "
        "detected from the first row", ("", "q", "a")),
}


@pytest.mark.parametrize("case", USUAL)
def test_usual_data_sets_are_read_without_a_word_about_them(case: str) -> None:
    """By hand, as the data sets' cards say."""
    row, line, texts = USUAL[case]
    said, (outcome,) = settled(row)
    assert said == line
    assert tuple(message.content for message in outcome.record.messages) == texts


def test_openais_older_name_of_tools() -> None:
    """`functions` beside `function_call`, bare as that API has them."""
    function = {"name": "f", "parameters": {"type": "object", "properties": {}}}
    line, (outcome,) = settled({"messages": MESSAGES, "functions": [function]})
    assert line == "openai (messages=messages, tools=functions, system=system), detected from the first row"
    assert outcome.record.tools == ({"type": "function", "function": function},)


def test_whole_conversations_beside_messages_are_pairs() -> None:
    """UltraFeedback's columns: messages repeat the better answer, and are not the prompt."""
    better, worse = MESSAGES, [MESSAGES[0], {"role": "assistant", "content": "worse"}]
    line, (outcome,) = settled({"prompt": MESSAGES[0]["content"], "chosen": better, "rejected": worse, "messages": better}, stage="dpo")
    assert line == ("preference (prompt=prompt, chosen=chosen, rejected=rejected, tools=tools, system=system), detected from the first "
                    "row; rows are pairs of answers; columns not read: messages")
    assert outcome.changes == ()
    assert [message.content for message in outcome.record.rejected] == ["worse"]


def test_messages_that_are_text() -> None:
    """What is wrong is the column, not that no format fits."""
    with pytest.raises(InputError) as caught:
        settled({"messages": json.dumps(MESSAGES)})
    assert caught.value.line() == ("a.jsonl:1: messages: array of messages wanted, found string; write the messages as JSON, not as text "
                                   "that holds JSON")


@pytest.mark.parametrize("columns", [{"prompt": "input", "response": "output"}, {"query": "instruction", "response": "output"}])
def test_a_column_is_not_read_under_two_keys(columns: dict[str, str]) -> None:
    """A default would read the column that was named for another key a second time, and ask everything twice."""
    row = {columns.get("prompt", columns.get("query")): "q", "output": "a"}
    Path("a.jsonl").write_text(json.dumps(row) + "\n")
    found = settle(locate({"file_name": "a.jsonl", "formatting": "alpaca", "columns": columns}, Path("data")), "sft")
    (_, outcome), = outcomes(found)
    assert [message.content for message in outcome.record.messages] == ["q", "a"]


def test_pictures_are_not_left_out_without_a_word() -> None:
    """A row that has some is left out, one that has none is trained; who declares the columns may train on the text alone."""
    rows = [{"messages": MESSAGES, "images": ["a.png"]}, {"messages": MESSAGES, "images": []}, {"messages": MESSAGES, "images": None}]
    line, found = settled(*rows)
    assert line.endswith("; columns not read: images")
    assert found[0] == Refusal("pictures, video or sound, of which only the text could be trained", "images is not empty")
    assert [isinstance(one, Converted) and one.changes == () for one in found[1:]] == [True, True]
    declared = settle(locate({"file_name": "a.jsonl", "formatting": "openai"}, Path("data")), "sft")
    assert all(isinstance(outcome, Converted) and outcome.changes == () for _, outcome in outcomes(declared))


def test_rows_below_a_key() -> None:
    """A file of one object, as SQuAD's."""
    with pytest.raises(InputError, match=r"^a\.jsonl:1: no format fits the columns version, data; if the rows are those below `data`, "
                                         "write that array alone$"):
        settled({"version": "1", "data": [{"instruction": "q", "output": "a"}]})

"""What is trained of conversations with calls, results and thoughts, in every bundled template that has a place for them.

Oracle: each text holds a word of its own. The trained tokens spell the words of the chosen answers - their texts and the arguments of
their calls, each once - and no word of anybody else: not of the definitions, the system prompt, a question or a result.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.templates.families import ORIGIN
from tests.templates.test_every_name import OPEN, OURS, renderer_of, tokenizer_of
from tunewright.data.masks import MaskPolicy
from tunewright.data.records import IGNORE_INDEX, Conversation, Message, ToolCall
from tunewright.data.template_sources import bundled_source
from tunewright.data.tokenize import encode_conversation
from tunewright.errors import InputError

WITH_CALLS = [name for name in OURS if "tool_call" in bundled_source(name).text]
ALWAYS_OFF = re.compile("_nothink$")
DEFINED = ({"type": "function", "function": {"name": "look", "description": "qdefq", "parameters": {
    "type": "object", "properties": {"what": {"type": "string", "description": "What"}}, "required": ["what"]}}},)
JUNK = st.lists(st.sampled_from([" ", "\n", "你好", "<|im_end|>", "</s>", "</tool_call>", "<tool_response>", "[TOOL_CALLS]", "{}", '"',
                                 "\\"]), max_size=2).map("".join)
ROUNDS = st.lists(st.tuples(
    JUNK, st.integers(0, 2), st.booleans(), st.booleans(), st.sampled_from([None, "t"])), min_size=1, max_size=2)
"""For each question: what is written around words, how many calls come first, whether text stands beside them, whether the answers
are trained, and a thought before the last of them."""


def turns_of(rounds: list[tuple[str, int, bool, bool, str | None]]) -> list[Message]:
    turns = [Message("system", "qsysq")]
    for number, (junk, calls, is_beside, is_trained, thought) in enumerate(rounds):
        turns.append(Message("user", f"qask{number}q{junk}"))
        if calls:
            made = tuple(ToolCall("look", {"what": f"qcall{number}{at}q{junk}"}, "", f"call00{number}{at}x") for at in range(calls))
            turns.append(Message("assistant", f"qbeside{number}q" if is_beside else "", is_trained, tool_calls=made))
            turns += [Message("tool", f"qresult{number}{at}q{junk}", name="look", call_id=f"call00{number}{at}x") for at in range(calls)]
        turns.append(Message("assistant", f"qsay{number}q{junk}", is_trained, reasoning=thought and f"qthought{number}q"))
    return turns


def words_of(turn: Message) -> list[str]:
    texts = [turn.content, *(call.arguments["what"] for call in turn.tool_calls)]
    return ["q" + text.split("q")[1] + "q" for text in texts if text]


def is_refused(error: InputError, turns: list[Message], rounds: list[tuple[str, int, bool, bool, str | None]],
               thinking: bool | None) -> bool:
    """What may be refused: calls that the vendors' own templates refuse, several of them or beside text; and answers without a thought
    where thinking is on and the template's prompt opens one."""
    if re.search("renders (a turn with exactly one tool call and no text|tool calls without text)", error.message):
        return any(turn.tool_calls and (len(turn.tool_calls) > 1 or turn.content) for turn in turns)
    return "set enable_thinking: null" in (error.mend or "") and thinking is True and rounds[-1][-1] is None


def test_every_template_with_a_place_for_calls_is_here() -> None:
    """They are told by their texts, which needs no template to be compiled while tests are collected."""
    assert [name for name in OURS if renderer_of(name).profile.calls_problem is None] == WITH_CALLS


@pytest.mark.parametrize("name", WITH_CALLS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(rounds=ROUNDS, masks=st.builds(MaskPolicy, st.booleans(), st.booleans()), thinking=st.sampled_from([True, False, None]))
def test_exactly_the_answers_and_calls_are_trained(
    name: str, rounds: list[tuple[str, int, bool, bool, str | None]], masks: MaskPolicy, thinking: bool | None) -> None:
    turns = turns_of(rounds)
    renderer, tokenizer = renderer_of(name, thinking), tokenizer_of(name)
    defined = DEFINED if renderer.profile.tools_problem is None and any(turn.tool_calls for turn in turns) else ()
    try:
        ids, labels = encode_conversation(Conversation(tuple(turns), ORIGIN, defined), renderer, tokenizer, masks)
    except InputError as error:
        assert is_refused(error, turns, rounds, thinking)
        return
    whole, text = tokenizer.decode(ids), tokenizer.decode([label for label in labels if label != IGNORE_INDEX])
    answers = [number for number, turn in enumerate(turns) if turn.role == "assistant"]
    chosen = {number for number in answers if turns[number].trained and (number == answers[-1] or not masks.mask_history)}
    for number, turn in enumerate(turns):
        for word in words_of(turn):
            assert whole.count(word) == 1, word
            assert text.count(word) == int(number in chosen if number in answers else masks.train_on_prompt), word
    assert (text.count("qdefq") > 0) == (masks.train_on_prompt and bool(defined))
    thought = rounds[-1][-1] and f"qthought{len(rounds) - 1}q"
    if thought and thinking is not False and not ALWAYS_OFF.search(name):
        assert text.count(thought) == int(answers[-1] in chosen)
    ends = {token for end in renderer.profile.terminators if (token := tokenizer.added_tokens_encoder.get(end.strip())) is not None}
    if ends and not masks.train_on_prompt and name not in OPEN:
        assert sum(label in ends for label in labels) == len(chosen)


@pytest.mark.parametrize(("name", "thinking", "expected"), [
    ("mistral", None, ('[TOOL_CALLS] [{"name": "look", "arguments": {"what": "sun"}, "id": "123456789"}]</s>', " Up.</s>", " No.</s>")),
    ("minimax2", False, (
        '\n<minimax:tool_call>\n<invoke name="look">\n<parameter name="what">sun</parameter>\n</invoke>\n</minimax:tool_call>[e~[',
        "Up.[e~[", "\n</think>\n\nNo.[e~["))])
def test_calls_of_an_earlier_round_are_trained(name: str, thinking: bool | None, expected: tuple[str, ...]) -> None:
    """By hand, from the vendors' formats. Mistral's tools stand before the last question alone, and MiniMax's earlier answers have no
    thought, while every prompt opens one: the prompt for an earlier call was another text than what stands before it."""
    call = Message("assistant", "", tool_calls=(ToolCall("look", {"what": "sun"}, "", "123456789"),))
    turns = (Message("user", "Sun?"), call, Message("tool", "up", call_id="123456789"), Message("assistant", "Up."),
             Message("user", "Moon?"), Message("assistant", "No."))
    rendered = renderer_of(name, thinking).render_spans(Conversation(turns, ORIGIN, DEFINED))
    assert tuple(rendered.text[span.start : span.end] for span in rendered.spans) == expected

"""Pairs, marked answers and prompts to tokens. Oracles: rows written out by hand, and the render, tokenised by transformers itself."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.test_lengths import SYSTEM, answer, naive_shares, question
from tests.data.test_pipeline import BREAK, END, START, Build, make, renderer, rows, said, tokenizer, word  # noqa: F401 - fixtures
from tunewright.config.data import TemplateConfig
from tunewright.data.answer_encoder import OTHER_PROMPT, AnswerEncoder, answered
from tunewright.data.cutting import answer_parts
from tunewright.data.examples import Tokens
from tunewright.data.formats.pairs import SAME
from tunewright.data.prompt_encoder import PromptEncoder
from tunewright.data.records import Feedback, Message, Origin, Preference, Prompt, ToolCall
from tunewright.data.templates import Renderer, load_renderer
from tunewright.data.tokenize import encode_conversations_fast, encode_prompts
from tunewright.errors import InputError
from tunewright.selftest.tiny import WORDS, _tokenizer

HERE = Origin("a.jsonl", 0, 1)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def says(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def turn(who: str, text: str) -> dict[str, str]:
    return {"from": who, "value": text}


def write(*found: dict[str, Any], name: str = "a.jsonl") -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in found))


def pair(prompt: list[int], chosen: list[int], rejected: list[int]) -> list[tuple[list[int], list[int]]]:
    """Oracle: both rows of a pair, of which the answers alone have labels."""
    return [([*prompt, *one], [*[-100] * len(prompt), *one]) for one in (chosen, rejected)]


def split(example: Any) -> list[tuple[list[int], list[int]]]:
    """The rows of an example."""
    cuts = example.bounds.tolist()
    return [(example.input_ids[begin:end].tolist(), example.labels[begin:end].tolist()) for begin, end in pairwise(cuts)]


LONG = [*question(1), *answer(2), BREAK, *question(3)]
PREFERENCES: dict[str, tuple[dict[str, Any], list[int]]] = {
    "alpaca": ({"instruction": "w3", "input": "", "chosen": "w4", "rejected": "w5 w6"}, question(3)),
    "alpaca, history": ({"instruction": "w3", "history": [["w1", "w2"]], "chosen": "w4", "rejected": "w5 w6"}, LONG),
    "sharegpt": ({"conversations": [turn("human", "w1"), turn("gpt", "w2"), turn("human", "w3")], "chosen": turn("gpt", "w4"),
                  "rejected": turn("gpt", "w5 w6")}, LONG),
    "sharegpt whole": ({"chosen": [turn("human", "w3"), turn("gpt", "w4")], "rejected": [turn("human", "w3"), turn("gpt", "w5 w6")]},
                       question(3)),
    "openai": ({"messages": [{"role": "system", "content": "w9"}, user("w3")], "chosen": says("w4"), "rejected": says("w5 w6")},
               [START, SYSTEM, BREAK, word(9), END, BREAK, *question(3)]),
    "ms-swift": ({"messages": [user("w3"), says("w4")], "rejected_response": "w5 w6"}, question(3)),
    "TRL": ({"prompt": "w3", "chosen": "w4", "rejected": "w5 w6"}, question(3)),
    "TRL, messages": ({"prompt": [user("w1"), says("w2"), user("w3")], "chosen": [says("w4")], "rejected": [says("w5 w6")]}, LONG),
    "OpenAI's own": ({"input": {"messages": [user("w3")]}, "preferred_output": [says("w4")], "non_preferred_output": [says("w5 w6")]},
                     question(3)),
}


@pytest.mark.parametrize("name", PREFERENCES)
@pytest.mark.parametrize("stage", ["dpo", "rm"])
def test_every_form_of_pairs(make: Build, name: str, stage: str) -> None:  # noqa: F811
    """One example, two rows, the same prompt, labels on the answers with what ends them; nothing behind."""
    row, prompt = PREFERENCES[name]
    write(row)
    train = make(stage=stage, dataset=("a.jsonl",)).train
    assert len(train) == 1  # type: ignore[arg-type]
    assert split(train[0]) == pair(prompt, answer(4), answer(5, 6))  # type: ignore[index]
    assert train.lengths.tolist() == [2 * len(prompt) + 5]  # type: ignore[union-attr]
    assert train.origins(0) == (Origin("a.jsonl", 0, 1),) * 2  # type: ignore[union-attr]


FEEDBACK: dict[str, tuple[dict[str, Any], list[int]]] = {
    "alpaca": ({"instruction": "w3", "output": "w4", "kto_tag": True}, question(3)),
    "openai": ({"messages": [user("w1"), says("w2"), user("w3"), says("w4")], "label": True}, LONG),
    "sharegpt": ({"conversations": [turn("human", "w3"), turn("gpt", "w4")], "label": True}, question(3)),
    "TRL": ({"prompt": "w3", "completion": "w4", "label": True}, question(3)),
}


@pytest.mark.parametrize("name", FEEDBACK)
def test_every_form_of_feedback(make: Build, name: str) -> None:  # noqa: F811
    """The last answer alone is trained, and the mark goes with the row."""
    row, prompt = FEEDBACK[name]
    mark = "kto_tag" if "kto_tag" in row else "label"
    write(row, {**row, mark: False})
    train = make(stage="kto", dataset=("a.jsonl",)).train
    ids = [*prompt, *answer(4)]
    assert rows(train) == [(ids, [*[-100] * len(prompt), *answer(4)])] * 2
    assert [example.mark for example in train] == [1, -1]  # type: ignore[union-attr, attr-defined]


PROMPTS: dict[str, tuple[dict[str, Any], list[int]]] = {
    "alpaca": ({"instruction": "w3", "output": "w4"}, question(3)),
    "openai": ({"messages": [user("w1"), says("w2"), user("w3")]}, LONG),
    "sharegpt": ({"conversations": [turn("human", "w3"), turn("gpt", "w4")]}, question(3)),
    "prompt": ({"prompt": "w3"}, question(3)),
}


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("stage", ["ppo", "grpo"])
def test_every_form_of_prompts(make: Build, name: str, stage: str) -> None:  # noqa: F811
    """Rendered up to where the answer begins; nothing is trained, and the row stays all the same."""
    row, prompt = PROMPTS[name]
    write(row)
    assert rows(make(stage=stage, dataset=("a.jsonl",)).train) == [(prompt, [-100] * len(prompt))]


TEXTS = st.lists(st.sampled_from([*WORDS, "naïve", "你好", "1 + 1", "\n\nx", ""]), min_size=1, max_size=6).map(" ".join)
TINY = _tokenizer()
RENDER = load_renderer(TemplateConfig(), TINY)


def encoder_of(render: Renderer, cutoff_len: int = 10_000, policy: str = "drop") -> AnswerEncoder:
    return AnswerEncoder(lambda found: encode_conversations_fast(found, render, TINY), cutoff_len, policy)  # type: ignore[arg-type]


def plain(text: str) -> list[int]:
    """The ids of a text by transformers itself."""
    return TINY(text, add_special_tokens=False)["input_ids"]


def apart(tokens: Tokens) -> tuple[list[int], list[int]]:
    """The ids before the first label, and the labels from there on."""
    begin = int(np.flatnonzero(tokens.labels != -100)[0])
    assert tokens.input_ids[begin:].tolist() == tokens.labels[begin:].tolist()
    return tokens.input_ids[:begin].tolist(), tokens.labels[begin:].tolist()


@given(st.lists(TEXTS, min_size=3, max_size=3), st.sampled_from([1, 3]), TEXTS, TEXTS)
def test_rows_are_the_render_token_by_token(texts: list[str], size: int, chosen: str, rejected: str) -> None:
    """Prompt and answers, tokenised apart by transformers: the prompt for generation, and what the render adds to it up to its end."""
    messages = tuple(Message("assistant" if number % 2 else "user", text) for number, text in enumerate(texts[:size]))
    answers = [(Message("assistant", one),) for one in (chosen, rejected)]
    prompt = RENDER.render(messages, generate=True)
    wanted = [(plain(prompt), plain(RENDER.render((*messages, *one)).removeprefix(prompt).removesuffix("\n"))) for one in answers]
    (encoded,) = encoder_of(RENDER)([Preference(messages, *answers, HERE)])
    assert [apart(piece) for piece in encoded.pieces] == (wanted if wanted[0] != wanted[1] else [])
    (marked,) = encoder_of(RENDER)([Feedback((*messages, *answers[1]), False, HERE)])
    assert [(apart(piece), piece.mark) for piece in marked.pieces] == [(wanted[1], -1)]
    (asked,) = PromptEncoder(lambda found: encode_prompts(found, RENDER, TINY), 10_000, "drop")([Prompt(messages, HERE)])
    assert [piece.input_ids.tolist() for piece in asked.pieces] == [wanted[0][0]]
    assert (asked.pieces[0].labels == -100).all()


def test_an_empty_answer_is_its_end() -> None:
    """What is trained of it is the token that ends it."""
    asked, nothing = (Message("user", "ember"),), (Message("assistant", ""),)
    (found,) = encoder_of(RENDER)([Feedback((*asked, *nothing), True, HERE)])
    assert apart(found.pieces[0]) == (plain(RENDER.render(asked, generate=True)), [TINY.eos_token_id])


def test_answers_of_several_turns_train_what_the_assistant_says() -> None:
    """A call, its result and an answer: the result is context in the middle of the chosen row."""
    render = load_renderer(TemplateConfig(template="qwen2.5"), TINY)
    asked = (Message("user", "river"), Message("assistant", "dune"), Message("user", "valley"))
    call = Message("assistant", "", tool_calls=(ToolCall("f", {"x": 1}, '{"x": 1}'),))
    chosen = (call, Message("tool", "ember"), Message("assistant", "willow"))
    (found,) = encoder_of(render)([Preference(asked, chosen, (Message("assistant", "candle"),), HERE)])
    good, bad = found.pieces
    prompt = plain(render.render(asked, generate=True))
    assert apart(bad) == (prompt, plain("candle<|im_end|>"))
    whole = render.render((*asked, *chosen)).removesuffix("\n")
    assert good.input_ids.tolist()[: len(prompt)] == prompt and TINY.decode(good.input_ids) == whole
    trained = [TINY.decode(good.input_ids[part]) for part in stretches(good.labels != -100)]
    assert trained == ['<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call><|im_end|>', "willow<|im_end|>"]


def stretches(wanted: np.ndarray) -> list[slice]:
    """The stretches that are true."""
    edges = np.flatnonzero(np.diff(wanted.astype(np.int8), prepend=0, append=0)).tolist()
    return [slice(*each) for each in zip(edges[::2], edges[1::2], strict=True)]


def test_both_answers_keep_the_prompt_of_the_chosen_one() -> None:
    """A template that opens an answer without a thought in another way: said, and the prompt of the chosen answer stands in both rows."""
    render = load_renderer(TemplateConfig(template="qwen3", enable_thinking=None), TINY)
    asked = (Message("user", "river"),)
    chosen, rejected = Message("assistant", "dune", reasoning="meadow"), Message("assistant", "candle")
    (found,) = encoder_of(render)([Preference(asked, (chosen,), (rejected,), HERE)])
    assert [note.reason for note in found.notes] == [OTHER_PROMPT] and found.notes[0].action == "changed"
    prompt = plain(render.render(asked, generate=True))
    texts = [TINY.decode(piece.input_ids[len(prompt):]) for piece in found.pieces]
    assert [piece.input_ids[: len(prompt)].tolist() for piece in found.pieces] == [prompt] * 2
    assert texts == ["<think>\nmeadow\n</think>\n\ndune<|im_end|>", "candle<|im_end|>"]


def test_an_answer_of_weight_0_drops_the_pair() -> None:
    asked, silent = (Message("user", "river"),), (Message("assistant", "dune", trained=False),)
    (found,) = encoder_of(RENDER)([Preference(asked, silent, (Message("assistant", "candle"),), HERE)])
    assert found.pieces == () and [(note.reason, note.detail) for note in found.notes] == [("no trainable token", "an answer has weight 0")]


def made(prompt: int, *answers: int) -> Any:
    """An encoder's rows: tokens 1 to `prompt` of the prompt, then 101, 102, ... of the first answer, 201, 202, ... of the second."""
    found = []
    for number, size in enumerate(answers, start=1):
        said_ = [100 * number + place for place in range(1, size + 1)]
        found.append(([*range(1, prompt + 1), *said_, 999], [*[-100] * prompt, *said_, -100]))
    return lambda _: found


CUTS: list[tuple[str, tuple[int, int, int], Any]] = [
    ("cut_right", (4, 9, 3), ((1, 4), 6, 3)),
    ("cut_right", (9, 9, 3), ((1, 9), 1, 1)),
    ("cut_right", (10, 9, 3), "no trainable token"),
    ("cut_left", (9, 4, 2), ((4, 9), 4, 2)),
    ("cut_left", (2, 9, 2), ((2, 2), 9, 2)),
    ("cut_left", (2, 10, 2), "no trainable token"),
    ("proportional", (20, 4, 2), ((1, 6), 4, 2)),    # 2 x 4 < 10: the answers are kept, and 6 tokens of the prompt
    ("proportional", (4, 20, 3), ((1, 4), 6, 3)),    # 2 x 4 < 10: the prompt is kept, and 6 tokens of the longer answer
    ("proportional", (10, 30, 12), ((1, 3), 7, 7)),  # 10 x 30 // 40 = 7 of the longer answer, 3 of the prompt
    ("drop", (4, 9, 3), "longer than cutoff_len 10"),
    ("drop", (4, 3, 9), "longer than cutoff_len 10"),
    ("drop", (4, 6, 6), ((1, 4), 6, 6)),
]


@pytest.mark.effect("cutoff_len", "cutoff_policy")
@pytest.mark.parametrize(("policy", "sizes", "kept"), CUTS)
def test_pairs_that_are_too_long(policy: str, sizes: tuple[int, int, int], kept: Any) -> None:
    """Ten tokens, by hand: which of the prompt are kept - the same for both answers - and how many of each answer."""
    prompt, *answers = sizes
    context, one = (Message("user", "x"),), (Message("assistant", "y"),)
    (found,) = AnswerEncoder(made(prompt, *answers), 10, policy)([Preference(context, one, one, HERE)])
    assert found.size == prompt + max(answers)
    total = 2 * prompt + sum(answers)
    if isinstance(kept, str):
        assert found.pieces == () and [(note.action, note.reason, note.tokens_lost) for note in found.notes] == [("dropped", kept, total)]
        return
    (first, last), *lengths = kept
    assert [apart(piece) for piece in found.pieces] == [
        (list(range(first, last + 1)), [100 * number + place for place in range(1, size + 1)])
        for number, size in enumerate(lengths, start=1)]
    left = sum(len(piece.input_ids) for piece in found.pieces)
    assert [(note.action, note.tokens_lost) for note in found.notes] == ([("changed", total - left)] if left < total else [])


@pytest.mark.parametrize(("policy", "kept"), [("cut_right", ((1, 4), 6)), ("cut_left", ((4, 4), 9)), ("proportional", ((1, 4), 6)),
                                              ("drop", None)])
def test_marked_answers_that_are_too_long(policy: str, kept: Any) -> None:
    """Ten tokens of a prompt of four and an answer of nine."""
    (found,) = AnswerEncoder(made(4, 9), 10, policy)([Feedback((Message("user", "x"), Message("assistant", "y")), False, HERE)])
    assert [apart(piece) for piece in found.pieces] == (
        [] if kept is None else [(list(range(kept[0][0], kept[0][1] + 1)), [100 + place for place in range(1, kept[1] + 1)])])
    assert all(piece.mark == -1 for piece in found.pieces) and len(found.notes) == 1


@pytest.mark.parametrize(("policy", "kept"), [("cut_right", (1, 10)), ("proportional", (1, 10)), ("cut_left", (3, 12)), ("drop", None)])
def test_prompts_that_are_too_long(policy: str, kept: tuple[int, int] | None) -> None:
    """Twelve tokens in ten; one of ten is not touched."""
    encoder = PromptEncoder(lambda found: [list(range(1, 13)), list(range(1, 11))], 10, policy)
    long, fits = encoder([Prompt((Message("user", "x"),), HERE)] * 2)
    assert [piece.input_ids.tolist() for piece in long.pieces] == ([] if kept is None else [list(range(kept[0], kept[1] + 1))])
    assert [note.tokens_lost for note in long.notes] == [12 if kept is None else 2]
    assert fits.notes == () and fits.pieces[0].input_ids.tolist() == list(range(1, 11))


def test_answers_that_are_cut_to_the_same_drop_the_pair() -> None:
    """Answers that differ only behind the cut; the audit gives the reason that rows with equal answers have."""
    rows_ = [([1, 2, 3, 4, 5, 6, end], [-100, -100, 3, 4, 5, 6, end]) for end in (7, 8)]
    one = (Message("assistant", "y"),)
    (found,) = AnswerEncoder(lambda _: rows_, 6, "cut_right")([Preference((Message("user", "x"),), one, one, HERE)])
    assert found.pieces == ()
    assert [(note.reason, note.detail, note.tokens_lost) for note in found.notes] == [(SAME, "as tokens, after they were cut", 14)]


def test_what_follows_the_last_trained_token_is_left_out() -> None:
    assert answered(([5, 6, 7, 8, 9], [-100, -100, 7, 8, -100])) is not None
    prompt, said_, labels = answered(([5, 6, 7, 8, 9], [-100, -100, 7, 8, -100]))  # type: ignore[misc]
    assert (prompt.tolist(), said_.tolist(), labels.tolist()) == ([5, 6], [7, 8], [7, 8])
    assert answered(([5, 6], [-100, -100])) is None


@given(st.integers(1, 60), st.integers(1, 60), st.integers(8, 60), st.sampled_from(["cut_right", "cut_left", "proportional", "drop"]))
def test_what_is_kept_fills_the_row(prompt: int, longest: int, cutoff_len: int, policy: str) -> None:
    """Whole where it fits; else exactly cutoff_len, with a token of both, from the ends that the policy names, or nothing."""
    found = answer_parts(prompt, longest, cutoff_len, policy)
    if prompt + longest <= cutoff_len:
        assert found == (slice(0, prompt), slice(0, longest))
        return
    if found is None:
        assert policy == "drop" or (policy == "cut_right" and prompt >= cutoff_len) or (policy == "cut_left" and longest >= cutoff_len)
        return
    asked, answers = (range(size)[part] for size, part in zip((prompt, longest), found, strict=True))
    assert len(asked) >= 1 and len(answers) >= 1 and len(asked) + len(answers) == cutoff_len
    assert answers.start == 0 and (asked.stop == prompt if policy == "cut_left" else asked.start == 0)
    assert policy != "cut_right" or len(asked) == prompt
    assert policy != "cut_left" or len(answers) == longest
    assert policy != "proportional" or (len(asked), len(answers)) == naive_shares(prompt, longest, cutoff_len)


def test_a_prompt_that_the_template_refuses_is_named() -> None:
    """ChatML as it stands here has no place for tools."""
    prompt = Prompt((Message("user", "ember"),), Origin("p.jsonl", 6, 7), ({"name": "f"},))
    with pytest.raises(InputError) as caught:
        encode_prompts([prompt], RENDER, TINY)
    assert caught.value.where == "p.jsonl:7"

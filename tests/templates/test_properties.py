"""What must hold of every bundled template on every kind of conversation.

Oracles: the family's terminator from the table in families.py, transformers' own tokenisation, and identities between the
render for training and the render for generation.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.templates.families import FAMILIES, conversation, renderer_of, tokenizer_of
from tunewright.data.records import IGNORE_INDEX, Conversation, Message
from tunewright.data.tokenize import encode_conversation, encode_conversations, encode_prompt

CONVERSATIONS = {
    "one turn": conversation(("user", "Hello?"), ("assistant", "Yes.")),
    "system": conversation(("system", "Be brief."), ("user", "Hello?"), ("assistant", "Yes.")),
    "several turns": conversation(("user", "One"), ("assistant", "Uno"), ("user", "One"), ("assistant", "Uno"), ("user", "Two"),
                                  ("assistant", "Dos")),
    "unicode": conversation(("user", "你好 🙂 naïve"), ("assistant", "世界 👩‍👩‍👧 ça va")),
    "white space": conversation(("user", "  \n ask \t\n"), ("assistant", "\n\n  answer with   gaps \n\n"), ("user", "\tmore "),
                                ("assistant", " end\n")),
    "control text": conversation(
        ("system", "<|im_start|>system <s>[INST]"), ("user", "What is <|im_end|></s><end_of_turn><|eot_id|><|user|><|end|>?"),
        ("assistant", "It ends <|im_end|></s> and <｜end▁of▁sentence｜><|eot_id|> here."), ("user", "<｜Assistant｜></s> [/INST]"),
        ("assistant", "</s>")),
    "private use": conversation(("user", "\U000f0002 and \U00100003"), ("assistant", "\U000f0004\U000f0004")),
    "reasoning": conversation(("user", "Why?"), Message("assistant", "So.", reasoning="Because\n\nof it."), ("user", "Why?"),
                              Message("assistant", "So.", reasoning="Once more.")),
}
CASES = [(name, kind) for name in FAMILIES for kind in CONVERSATIONS]


def trained_text(ids: list[int], labels: list[int], name: str) -> str:
    """The trained tokens as text."""
    return tokenizer_of(name).decode([one for one, label in zip(ids, labels, strict=True) if label != IGNORE_INDEX])


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("thinking", [True, False, None])
def test_prompt_is_the_beginning_of_the_training_render(name: str, kind: str, thinking: bool | None) -> None:
    """Training render = inference render, as text and as ids: the last answer's span begins where its prompt ends."""
    renderer, row = renderer_of(name, enable_thinking=thinking), CONVERSATIONS[kind]
    rendered = renderer.render_spans(row)
    reasons = thinking is None and row.messages[-1].reasoning is None
    asks = renderer_of(name, enable_thinking=False) if reasons else renderer
    prompt = asks.render(row.messages[:-1], generate=True)
    assert rendered.text.startswith(prompt)
    assert rendered.spans[-1].start == len(prompt)
    ids, labels = encode_conversation(row, renderer, tokenizer_of(name))
    prompt_ids = encode_prompt(row.messages[:-1], asks, tokenizer_of(name))
    if len(row.messages) <= 3:
        assert ids[: len(prompt_ids)] == prompt_ids
        assert labels[: len(prompt_ids)] == [IGNORE_INDEX] * len(prompt_ids)
        assert labels[len(prompt_ids)] == ids[len(prompt_ids)]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_each_answer_is_trained_once_with_its_terminator(name: str, kind: str) -> None:
    """One span for each answer, in order: nothing but white space or a think block, the answer, its terminator."""
    rendered = renderer_of(name).render_spans(CONVERSATIONS[kind])
    answers = [message for message in CONVERSATIONS[kind].messages if message.role == "assistant"]
    assert len(rendered.spans) == len(answers)
    for span, message in zip(rendered.spans, answers, strict=True):
        text = rendered.text[span.start : span.end]
        assert text.endswith(FAMILIES[name].end)
        body = text.removesuffix(FAMILIES[name].end).strip()
        *block, answer = body.rpartition("</think>")
        assert answer.strip() == message.content.strip()
        assert all(not part or part == "</think>" or (message.reasoning or "") in part for part in block)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_terminator_is_a_token_trained_exactly_once_per_answer(name: str, kind: str) -> None:
    """Count of the terminator's id among the labels = number of answers, also where messages spell it out."""
    tokenizer, row = tokenizer_of(name), CONVERSATIONS[kind]
    ids, labels = encode_conversation(row, renderer_of(name), tokenizer)
    end = tokenizer.convert_tokens_to_ids(FAMILIES[name].end)
    assert labels.count(end) == sum(message.role == "assistant" for message in row.messages)
    assert all(label in (one, IGNORE_INDEX) for one, label in zip(ids, labels, strict=True))


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_ids_are_the_tokenizers_own_or_spell_the_same_text(name: str, kind: str) -> None:
    """Oracle: transformers. Without control text the ids are those of the whole render; with it, the text is the same."""
    tokenizer, renderer, row = tokenizer_of(name), renderer_of(name), CONVERSATIONS[kind]
    ids, _ = encode_conversation(row, renderer, tokenizer)
    text = renderer.render(row.messages)
    assert tokenizer.decode(ids) == text
    if kind not in ("control text", "white space"):
        own = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids == own or name in ("empty", "alpaca")


@pytest.mark.parametrize("name", FAMILIES)
def test_control_text_makes_no_control_token(name: str) -> None:
    """Oracle: the same conversation with harmless words has the same control tokens in the same order."""
    tokenizer, renderer = tokenizer_of(name), renderer_of(name)
    row = CONVERSATIONS["control text"]
    harmless = Conversation(tuple(Message(message.role, "word") for message in row.messages), row.origin)
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    found = [[one for one in encode_conversation(each, renderer, tokenizer)[0] if one in special] for each in (row, harmless)]
    assert found[0] == found[1]


@pytest.mark.parametrize("name", FAMILIES)
def test_bos_is_never_doubled(name: str) -> None:
    """Llama 2 begins each round with BOS by its format; SmolLM2's BOS opens each turn; elsewhere there is at most one."""
    tokenizer = tokenizer_of(name)
    ids, _ = encode_conversation(CONVERSATIONS["several turns"], renderer_of(name), tokenizer)
    if tokenizer.bos_token_id is not None:
        assert ids.count(tokenizer.bos_token_id) <= {"llama2": 3, "smollm2": 7}.get(name, 1)
        assert ids[:2] != [tokenizer.bos_token_id] * 2


@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_is_its_rows(name: str) -> None:
    """Identity: encoded together or one by one."""
    tokenizer, renderer = tokenizer_of(name), renderer_of(name)
    rows = list(CONVERSATIONS.values())
    assert encode_conversations(rows, renderer, tokenizer) == [encode_conversation(row, renderer, tokenizer) for row in rows]


@pytest.mark.parametrize("name", FAMILIES)
def test_generation_stops_at_the_trained_terminator(name: str) -> None:
    """The ids that end generation hold what training teaches the model to write, and the tokenizer's EOS."""
    tokenizer, renderer = tokenizer_of(name), renderer_of(name)
    stops = renderer.stop_token_ids(tokenizer)
    assert tokenizer.eos_token_id in stops
    assert tokenizer.convert_tokens_to_ids(FAMILIES[name].end) in stops
    assert FAMILIES[name].end in renderer.stop_strings


PIECES = st.sampled_from(["hello", " ", "\n", "你好", "🙂", "<|im_end|>", "<s>", "</s>", "[INST]", "<|user|>", "<end_of_turn>", "<think>x",
                          "</", "<|", "|>", "a", ".", "<｜User｜>", "<tool_call>", "\t", "é"])
TEXTS = st.lists(PIECES, min_size=1, max_size=8).map("".join).filter(lambda text: text.strip() and "</think>" not in text)
ROUNDS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=12, deadline=None)
@given(rounds=ROUNDS, system=st.none() | TEXTS)
def test_random_conversations(name: str, rounds: list[tuple[str, str]], system: str | None) -> None:
    """The trained ids spell the answers with their terminators and nothing else, whatever anybody writes.

    Oracle: the answers themselves; white space around them may be the template's or cut off by it, hence compared stripped.
    """
    spoken = [turn for ask, answer in rounds for turn in (("user", ask), ("assistant", answer))]
    turns = [("system", system)] * (system is not None) + spoken
    ids, labels = encode_conversation(conversation(*turns), renderer_of(name, enable_thinking=False), tokenizer_of(name))
    groups, group = [], []
    for one, label in zip(ids, labels, strict=True):
        if label == IGNORE_INDEX:
            groups, group = ([*groups, group] if group else groups), []
        else:
            group.append(one)
    groups += [group] if group else []
    assert len(groups) == len(rounds)
    for found, (_, answer) in zip(groups, rounds, strict=True):
        assert tokenizer_of(name).decode(found[-1:]) == FAMILIES[name].end
        assert tokenizer_of(name).decode(found[:-1]).strip() == answer.strip()

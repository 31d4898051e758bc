"""Thinking on, off and as the rows are. Oracle: Qwen 3's and DeepSeek R1's documented formats, by hand."""

from __future__ import annotations

import pytest

from tests.templates.families import conversation, renderer_of, tokenizer_of
from tunewright.config.data import TemplateConfig
from tunewright.data.quirks import Quirks
from tunewright.data.records import Message
from tunewright.data.templates import load_renderer
from tunewright.data.tokenize import encode_conversation
from tunewright.errors import InputError

ASKED = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
THOUGHT = Message("assistant", "Hello.", reasoning="Greet back.")
PLAIN = Message("assistant", "Hello.")
IN_TEXT = Message("assistant", "<think>\nGreet back.\n</think>\n\nHello.")
FULL = "<think>\nGreet back.\n</think>\n\nHello.<|im_end|>"
EMPTY = "<think>\n\n</think>\n\n"


@pytest.mark.effect("enable_thinking")
@pytest.mark.parametrize(("answer", "switch", "prompt", "trained"), [
    (THOUGHT, True, ASKED, FULL),
    (IN_TEXT, True, ASKED, FULL),
    (PLAIN, True, ASKED, EMPTY + "Hello.<|im_end|>"),
    (THOUGHT, False, ASKED + EMPTY, "Hello.<|im_end|>"),
    (IN_TEXT, False, ASKED + EMPTY, "Hello.<|im_end|>"),
    (PLAIN, False, ASKED + EMPTY, "Hello.<|im_end|>"),
    (THOUGHT, None, ASKED, FULL),
    (PLAIN, None, ASKED + EMPTY, "Hello.<|im_end|>"),
], ids=lambda value: str(value)[:20])
def test_qwen3_last_answer(answer: Message, switch: bool | None, prompt: str, trained: str) -> None:
    """Thinking on: the block is the model's to write, so it is trained. Off: it belongs to the prompt, so it is not."""
    renderer = renderer_of("qwen3", enable_thinking=switch)
    rendered = renderer.render_spans(conversation(("user", "Hi"), answer))
    assert rendered.text == prompt + trained + "\n"
    assert rendered.spans == ((len(prompt), len(prompt + trained)),)
    if switch is not None:
        assert renderer.render([Message("user", "Hi")], generate=True) == prompt


@pytest.mark.parametrize("switch", [True, False, None])
def test_qwen3_history_has_no_thoughts(switch: bool | None) -> None:
    """Earlier answers stand without block and are trained as they stand; the last one has it by the switch."""
    rendered = renderer_of("qwen3", enable_thinking=switch).render_spans(
        conversation(("user", "Hi"), THOUGHT, ("user", "Bye"), PLAIN))
    before = ASKED + "Hello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    assert rendered.text == before + EMPTY + "Hello.<|im_end|>\n"
    trained = [rendered.text[start:end] for start, end in rendered.spans]
    assert trained == ["Hello.<|im_end|>", ("" if switch is not True else EMPTY) + "Hello.<|im_end|>"]


@pytest.mark.parametrize(("switch", "prompt_end", "trained"), [
    (True, "<think>\n", "Greet back.\n</think>\n\nHello.<｜end▁of▁sentence｜>"),
    (False, "<think>\n\n</think>\n\n", "Hello.<｜end▁of▁sentence｜>"),
])
def test_deepseek_r1(switch: bool, prompt_end: str, trained: str) -> None:
    """The prompt opens the thought; what follows is trained. An earlier answer stands without its thought."""
    renderer = renderer_of("deepseek_r1", enable_thinking=switch)
    rendered = renderer.render_spans(conversation(("user", "A"), THOUGHT, ("user", "Hi"), THOUGHT))
    assert rendered.text.endswith("<｜User｜>Hi<｜Assistant｜>" + prompt_end + trained)
    assert [rendered.text[start:end] for start, end in rendered.spans] == ["Hello.<｜end▁of▁sentence｜>", trained]


def test_reasoning_is_written_as_a_block_where_the_template_does_not_know_it() -> None:
    """ChatML has no place for reasoning: it becomes part of the text; with thinking off it is left out."""
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n{}Hello.<|im_end|>\n"
    turns = [Message("user", "Hi"), THOUGHT]
    assert renderer_of("chatml").render(turns) == text.format("<think>\nGreet back.\n</think>\n\n")
    assert renderer_of("chatml", enable_thinking=False).render(turns) == text.format("")
    assert renderer_of("chatml", enable_thinking=False).render([turns[0], IN_TEXT]) == text.format("<think>\nGreet back.\n</think>\n\n")


KEPT = Quirks(["think-block-in-history"])
RAW = Message("assistant", "<think>As it is.</think>Hello.")


@pytest.mark.parametrize(("answer", "block"), [
    (THOUGHT, "<think>\nGreet back.\n</think>\n\n"), (IN_TEXT, "<think>\nGreet back.\n</think>\n\n"), (RAW, "<think>As it is.</think>"),
    (PLAIN, ""), (Message("assistant", "Hello.", reasoning=" "), "")], ids=["beside", "in the text", "as it is", "none", "blank"])
@pytest.mark.parametrize("switch", [True, None])
@pytest.mark.parametrize("name", ["qwen3", "chatml"])
def test_with_the_quirk_earlier_answers_keep_their_thoughts(name: str, switch: bool | None, answer: Message, block: str) -> None:
    """LLaMA-Factory renders each answer of a conversation as the row has it. The thought is trained, its tags are the tags' tokens,
    and both ways to render agree. With thinking off, and in prompts, it is left out as without the quirk."""
    tokenizer = tokenizer_of("qwen3")
    renderer = load_renderer(TemplateConfig(template=name, enable_thinking=switch), tokenizer, KEPT)
    row = conversation(("user", "Hi"), answer, ("user", "Bye"), ("assistant", "Later."))
    rendered = renderer.render_spans(row)
    assert rendered == renderer.render_spans_fast(row)
    assert ASKED + block + "Hello.<|im_end|>\n<|im_start|>user\nBye" in rendered.text
    assert rendered.text[slice(*rendered.spans[0])] == block + "Hello.<|im_end|>"
    ids, labels = encode_conversation(row, renderer, tokenizer)
    tag, end = (tokenizer.convert_tokens_to_ids(one) for one in ("<think>", "<|im_end|>"))
    ends = [place for place, token in enumerate(ids) if token == end]
    assert [part[ends[0] : ends[1]].count(tag) for part in (ids, labels)] == [bool(block)] * 2
    plain = load_renderer(TemplateConfig(template=name, enable_thinking=switch), tokenizer)
    assert renderer.render(row.messages[:3], generate=True) == plain.render(row.messages[:3], generate=True)
    off = [load_renderer(TemplateConfig(template=name, enable_thinking=False), tokenizer, quirks) for quirks in (KEPT, Quirks())]
    assert off[0].render_spans(row) == off[1].render_spans(row)


def test_the_quirk_leaves_channels_alone_and_refuses_its_own_characters() -> None:
    """GPT-OSS's thoughts are turns of a channel, which the template places; a text with a stand-in in it is no text that can be kept."""
    assert not load_renderer(TemplateConfig(template="gpt_oss"), tokenizer_of("qwen3"), KEPT).keeps_thoughts
    renderer = load_renderer(TemplateConfig(template="qwen3"), tokenizer_of("qwen3"), KEPT)
    with pytest.raises(InputError, match=r"a text holds one of the private characters U\+F8C0 to U\+F8C3; take it out"):
        renderer.render_spans(conversation(("user", "\uf8c1"), PLAIN))

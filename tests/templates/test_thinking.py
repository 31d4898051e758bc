"""Thinking on, off and as the rows are. Oracle: Qwen 3's and DeepSeek R1's documented formats, by hand."""

from __future__ import annotations

import pytest

from tests.templates.families import conversation, renderer_of
from tunewright.data.records import Message

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

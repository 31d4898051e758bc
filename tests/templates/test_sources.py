"""Which template is used, and what happens where it cannot be."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from tests.templates.families import CHATML, Family, conversation, make_tokenizer, renderer_of, tokenizer_of
from tunewright.config.data import TemplateConfig
from tunewright.data.records import Message, ToolCall
from tunewright.data.templates import load_renderer
from tunewright.data.tokenize import encode_conversation
from tunewright.errors import InputError

OWN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
# No terminator at all: the renderer closes the last answer with EOS.
BARE = "{% for m in messages %}{{ '\\n# ' + m.role + ':' }}{{ ' ' + m.content if m.role == 'assistant' else m.content }}{% endfor %}" \
       "{% if add_generation_prompt %}{{ '\\n# assistant:' }}{% endif %}"
ASK = conversation(("user", "Hi"), ("assistant", "Yes"))


def test_auto_is_the_tokenizers_own() -> None:
    """Oracle: transformers' apply_chat_template, for training and for generation."""
    tokenizer = make_tokenizer(Family(CHATML, None, "<|im_end|>", "<|im_end|>"))
    tokenizer.chat_template = OWN
    renderer = load_renderer(TemplateConfig(), tokenizer)
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    assert renderer.render(ASK.messages) == tokenizer.apply_chat_template(turns, tokenize=False)
    assert renderer.render(ASK.messages[:1], generate=True) == tokenizer.apply_chat_template(
        turns[:1], tokenize=False, add_generation_prompt=True)
    ids, _ = encode_conversation(ASK, renderer, tokenizer)
    assert ids == tokenizer.apply_chat_template(turns, tokenize=True)["input_ids"]


def test_base_model_without_template_is_refused() -> None:
    """The mend names the bundled templates."""
    with pytest.raises(InputError, match=r"the tokenizer has no chat template; set `template` to .*alpaca.*chatml.*jinja file"):
        load_renderer(TemplateConfig(), make_tokenizer(Family(CHATML, None, "<|im_end|>", "")))


@pytest.mark.parametrize(("written", "name"), [
    ("qwen", "qwen2.5"), ("QWEN2.5", "qwen2.5"), ("InternLM2", "internlm2"), ("phi", "phi3"), ("deepseekr1", "deepseek_r1"),
    ("ChatML", "chatml"), ("plain", "empty")])
def test_names_and_aliases(written: str, name: str) -> None:
    """LLaMA-Factory's names, in any case."""
    assert load_renderer(TemplateConfig(template=written), tokenizer_of(name)).name == name


def test_unknown_name_lists_the_nearest() -> None:
    """Text is behaviour."""
    with pytest.raises(InputError, match=r"template: there is no bundled template 'lama3'; did you mean .*llama3"):
        load_renderer(TemplateConfig(template="lama3"), tokenizer_of("chatml"))


def test_missing_file() -> None:
    """One line with the path."""
    with pytest.raises(InputError, match=r"^nowhere/chat\.jinja: the template file cannot be read: No such file"):
        load_renderer(TemplateConfig(template="nowhere/chat.jinja"), tokenizer_of("chatml"))


def test_template_without_terminator_gets_eos_after_the_last_answer(tmp_path: Path) -> None:
    """By hand: earlier answers end with their text, the last one with EOS."""
    path = tmp_path / "bare.jinja"
    path.write_text(BARE, encoding="utf-8")
    renderer = load_renderer(TemplateConfig(template=str(path)), tokenizer_of("vicuna"))
    rendered = renderer.render_spans(conversation(("user", "Hi"), ("assistant", "Yes"), ("user", "Bye"), ("assistant", "No")))
    assert rendered.text == "\n# user:Hi\n# assistant: Yes\n# user:Bye\n# assistant: No</s>"
    assert [rendered.text[start:end] for start, end in rendered.spans] == [" Yes", " No</s>"]


@pytest.mark.parametrize(("name", "turns", "tools", "reason"), [
    ("vicuna", [Message("user", "a"), Message("assistant", "b")], ({"type": "function", "function": {"name": "f"}},),
     "has no place for tools"),
    ("gemma", [Message("user", "a"), Message("assistant", "", tool_calls=(ToolCall("f", {}, ""),))], (), "has no turn for results"),
    ("llama3", [Message("user", "a"), Message("assistant", "", tool_calls=(ToolCall("f", {}, ""), ToolCall("g", {}, "")))], (),
     "exactly one tool call"),
    ("chatml", [Message("user", "a"), Message("system", "late"), Message("assistant", "b")], (), "a system message can only come first"),
    ("chatml", [], (), "the conversation has no messages"),
])
def test_rows_that_cannot_be_rendered_name_their_line(name: str, turns: list[Message], tools: tuple, reason: str) -> None:
    """file:line, reason and mend in one line."""
    with pytest.raises(InputError, match=rf"^rows\.jsonl:7: .*{reason}.*; ") as caught:
        renderer_of(name).render_spans(conversation(*turns, tools=tools))
    assert "\n" not in str(caught.value)


def test_a_renderer_is_a_value() -> None:
    """Equal after pickling, also in use; its repr is the same in each process."""
    renderer = renderer_of("qwen3")
    encode_conversation(ASK, renderer, tokenizer_of("qwen3"))
    copy = pickle.loads(pickle.dumps(renderer))  # noqa: S301 - our own bytes
    assert copy == renderer and repr(copy) == repr(renderer)
    assert encode_conversation(ASK, copy, tokenizer_of("qwen3")) == encode_conversation(ASK, renderer, tokenizer_of("qwen3"))


def test_exported_text_renders_the_same_in_transformers() -> None:
    """Oracle: apply_chat_template with `Renderer.source`, which carries the values that only we give."""
    tokenizer = make_tokenizer(Family(("<s>", "</s>"), "<s>", "</s>", "</s>"))
    renderer = load_renderer(TemplateConfig(template="vicuna", default_system='Say "hi".'), tokenizer)
    tokenizer.chat_template = renderer.source
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True) == \
        renderer.render([Message("user", "Hi")], generate=True) == 'Say "hi". USER: Hi ASSISTANT:'


def test_the_tokenizer_is_left_as_it_was() -> None:
    """Its state before and after encoding rows with and without control text, with padding and truncation set beforehand."""
    tokenizer = make_tokenizer(Family(CHATML, None, "<|im_end|>", "<|im_end|>"))
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer(["a b c d", "a"], padding=True, truncation=True, max_length=2)
    renderer = load_renderer(TemplateConfig(template="chatml"), tokenizer)
    before = tokenizer.backend_tokenizer.to_str()
    rows = [encode_conversation(conversation(("user", text), ("assistant", "b " * 20)), renderer, tokenizer)[0]
            for text in ("a", "<|im_end|>")]
    assert tokenizer.backend_tokenizer.to_str() == before
    assert min(map(len, rows)) > 20
    assert all(tokenizer.pad_token_id not in row for row in rows)


@pytest.mark.parametrize(("tokenizer", "template", "said"), [
    ("llama2", "chatml", "template chatml: answers end with '<|im_end|>', which is 6 tokens of this tokenizer and not one: generation will "
                         "not stop there; use the template of this model, or name it in add_special_tokens"),
    ("chatml", "chatml", None), ("llama2", "vicuna", None), ("llama2", "default", None)])
def test_an_end_that_is_no_token_is_told(tokenizer: str, template: str, said: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """A base model with another family's template would be trained to write the end as text, and never to stop."""
    found = tokenizer_of(tokenizer)
    load_renderer(TemplateConfig(template=template), found)
    size = len(found.encode("<|im_end|>", add_special_tokens=False))
    assert caplog.messages == ([] if said is None else [said.replace("6 tokens", f"{size} tokens")])

"""What a row says of calls beside their texts - identifiers, which result is of which call - and who speaks.

Oracle: renders written out by hand, of a template that shows what it is given.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.templates.families import conversation, renderer_of, tokenizer_of
from tunewright.config.data import TemplateConfig
from tunewright.data import tokenize
from tunewright.data.records import Message, ToolCall
from tunewright.data.templates import Renderer, load_renderer
from tunewright.data.tokenize import encode_conversation, encode_conversations_fast

SHOWS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}{{ '(' ~ m.name ~ ')' if m.name else '' }}"
    "{{ '#' ~ m.tool_call_id if m.tool_call_id else '' }}\n"
    "{{ m.content }}{% for c in m.tool_calls or [] %}[{{ c.id }} {{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
ASK, SAY = Message("user", "q"), Message("assistant", "a")
TWO = (ToolCall("f", {"x": "1"}, "", "functions.f:0"), ToolCall("g", {"x": "2"}, "", "functions.g:1"))


@pytest.fixture
def shows(tmp_path: Path) -> Renderer:
    (tmp_path / "shows.jinja").write_text(SHOWS)
    return load_renderer(TemplateConfig(template=str(tmp_path / "shows.jinja")), tokenizer_of("qwen2.5"))


def heads(renderer: Renderer, *turns: Message) -> list[str]:
    """The first line of each turn behind its role, and the calls."""
    text = renderer.render_spans(conversation(*turns)).text
    return [part.split("\n")[0] if "[" not in part else part.removesuffix("<|im_end|>\n") for part in text.split("<|im_start|>")[1:]]


def test_identifiers_of_the_row_are_kept_and_results_find_their_calls(shows: Renderer) -> None:
    """Results in another order than the calls, as parallel calls come back; the tool's own name stays."""
    results = [Message("tool", "2", call_id="functions.g:1"), Message("tool", "1", call_id="functions.f:0", name="mine")]
    assert heads(shows, ASK, replace(SAY, content="", tool_calls=TWO), *results, SAY) == [
        "user", 'assistant\n[functions.f:0 f {"x": "1"}][functions.g:1 g {"x": "2"}]', "tool(g)#functions.g:1", "tool(mine)#functions.f:0",
        "assistant"]


@pytest.mark.parametrize("second", [None, ""])
def test_where_a_call_has_none_all_are_numbered(shows: Renderer, second: str | None) -> None:
    """So that no two are alike; a result that names the first call still is the first call's."""
    calls = (TWO[0], replace(TWO[1], id=second))
    found = heads(shows, ASK, replace(SAY, content="", tool_calls=calls), Message("tool", "2"), Message("tool", "1"), SAY)
    assert found[1:4] == ['assistant\n[call00000 f {"x": "1"}][call00001 g {"x": "2"}]', "tool(f)#call00000", "tool(g)#call00001"]
    found = heads(shows, ASK, replace(SAY, content="", tool_calls=(replace(TWO[0], id=second), TWO[1])),
                  Message("tool", "2", call_id="functions.g:1"), Message("tool", "1"), SAY)
    assert found[2:4] == ["tool(g)#call00001", "tool(f)#call00000"]


@pytest.mark.parametrize(("given", "written"), [("a1B2c3D4e", "a1B2c3D4e"), ("call_0123456789", "call00000"), ("functions", "functions"),
                                                 ("short", "call00000"), ("nine-char", "call00000")])
def test_mistral_has_nine_letters_and_digits(given: str, written: str) -> None:
    """Mistral's own templates stop at any other identifier."""
    call = ToolCall("f", {}, "", given)
    text = renderer_of("mistral").render([ASK, replace(SAY, content="", tool_calls=(call,)), Message("tool", "1", call_id=given), SAY])
    assert f'"id": "{written}"' in text and f'"call_id": "{written}"' in text


def test_a_speaker_has_his_name(shows: Renderer) -> None:
    """In the render, fast or not; a conversation of the same shape without names has none."""
    named, plain = conversation(replace(ASK, name="Ann"), replace(SAY, name="Bot")), conversation(ASK, SAY)
    for _ in range(2):
        for render in (shows.render_spans, shows.render_spans_fast):
            assert render(plain).text == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
            assert render(replace(named, messages=(named.messages[0], SAY))).text.startswith("<|im_start|>user(Ann)\nq<|im_end|>")


HOSTILE = "<|im_end|>"


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast way, however few the rows."""
    monkeypatch.setattr(tokenize, "MANY_ROWS", 1)


@pytest.mark.parametrize("turns", [
    (replace(ASK, name=HOSTILE), SAY),
    (ASK, replace(SAY, content="", tool_calls=(ToolCall(HOSTILE, {}, ""),)), Message("tool", "1"), SAY),
    (ASK, replace(SAY, content="", tool_calls=(ToolCall("f", {}, "", HOSTILE),)), Message("tool", "1", call_id=HOSTILE), SAY),
    (ASK, replace(SAY, content="", tool_calls=(ToolCall("f", {}, ""),)), Message("tool", "1", name=HOSTILE), SAY),
], ids=["speaker", "tool", "identifier", "name of a result"])
def test_names_and_identifiers_are_text(shows: Renderer, turns: tuple[Message, ...]) -> None:
    """A control token in one of them is written in letters: each turn has the one end that the template writes."""
    tokenizer = tokenizer_of("qwen2.5")
    end = tokenizer.convert_tokens_to_ids(HOSTILE)
    row = conversation(*turns)
    assert shows.render_spans(row).text.count(HOSTILE) > len(turns)
    (fast,) = encode_conversations_fast([row], shows, tokenizer)
    for ids in (encode_conversation(row, shows, tokenizer)[0], fast[0]):
        assert list(ids).count(end) == len(turns)

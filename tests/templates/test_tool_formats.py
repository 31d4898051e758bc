"""Formats of tools by name, in the place of a template's own.

Oracles: texts recorded from LLaMA-Factory 0.9.5 where it writes the same; vendors' documented formats, by hand.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.templates.families import Family, conversation, make_tokenizer, tokenizer_of
from tests.templates.test_every_name import RECORDED
from tunewright.config.data import TemplateConfig
from tunewright.data.records import Message, ToolCall
from tunewright.data.template_table import tool_format_names
from tunewright.data.templates import Renderer, load_renderer
from tunewright.dialects.read import read_config
from tunewright.errors import InputError
from tunewright.selftest.tiny import write_model

WEATHER = {"type": "function", "function": {"name": "weather", "description": "Weather of a city", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "description": "A city"},
                                     "days": {"type": "integer", "description": "How many"}}, "required": ["city"]}}}
CALL = Message("assistant", "", tool_calls=(ToolCall("weather", {"city": "Oslo", "days": 2}, ""),))
TURNS = (Message("user", "Oslo?"), CALL, Message("tool", "rain"), Message("assistant", "It rains."))
CALLS = {
    "deepseek": '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Oslo", "days": 2}<｜tool▁call▁end｜>'
                "<｜tool▁calls▁end｜>",
    "glm4_moe": "\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n<arg_key>days</arg_key>\n"
                "<arg_value>2</arg_value>\n</tool_call>",
    "minimax2": '\n<minimax:tool_call>\n<invoke name="weather">\n<parameter name="city">Oslo</parameter>\n'
                '<parameter name="days">2</parameter>\n</invoke>\n</minimax:tool_call>',
    "mistral": '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}]',
    "seed_oss": "\n<seed:tool_call>\n<function=weather>\n<parameter=city>Oslo</parameter>\n<parameter=days>2</parameter>\n</function>\n"
                "</seed:tool_call>",
}
DEFINITIONS = {
    "deepseek": "## Tools\nYou have access to the following tools:\n\n### weather\nDescription: Weather of a city\n\nParameters: ",
    "gemma4": '<|tool>declaration:weather{description:<|"|>Weather of a city<|"|>,parameters:{properties:{city:{description:<|"|>A city'
              '<|"|>,type:<|"|>STRING<|"|>},days:{description:<|"|>How many<|"|>,type:<|"|>INTEGER<|"|>}},required:[<|"|>city<|"|>],'
              'type:<|"|>OBJECT<|"|>}}<tool|>',
    "glm4": "# 可用工具\n\n## weather\n\n{\n    \"name\": \"weather\",",
    "lfm2": 'List of tools: <|tool_list_start|>[{"type": "function", "function": {"name": "weather",',
    "llama3": "You have access to the following functions. To call a function, please respond with JSON for a function call. Respond in "
              'the format {"name": function name, "parameters": dictionary of argument name and its value}. Do not use variables.\n\n{\n'
              '    "type"',
    "minimax2": '<tools>\n<tool>{"name": "weather",',
    "qwen3_5": '# Tools\n\nYou have access to the following functions:\n\n<tools>\n{"type": ',
    "seed_oss": "You are Doubao, a helpful AI assistant.",
}
FORMATS = sorted(set(tool_format_names()) - {"react", "hermes"})


def renderer(template: str, tool_format: str) -> Renderer:
    return load_renderer(TemplateConfig(template=template, tool_format=tool_format), tokenizer_of(template))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("template", ["chatml", "qwen3", "yi", "llama3"])
def test_each_format_in_other_templates(template: str, name: str) -> None:
    """Definitions stand before the question and are not trained; the call is an answer of its own, trained with its terminator."""
    if template == "yi":
        given = load_renderer(TemplateConfig(template="yi", tool_format=name), tokenizer_of("chatml"))
    else:
        given = renderer(template, name)
    rendered = given.render_spans(conversation(*TURNS, tools=(WEATHER,)))
    recorded = RECORDED["tool_formats"].get(name, {})
    definitions, call = recorded.get("tools", DEFINITIONS.get(name)), recorded.get("calls", CALLS.get(name))
    end = "<|eot_id|>" if template == "llama3" else "<|im_end|>"
    assert definitions.strip() in rendered.text.partition("Oslo?")[0]
    first, second = (rendered.text[start:stop] for start, stop in rendered.spans)
    assert first.strip() == call.strip() + end
    assert second.endswith("It rains." + end)
    assert "rain" not in first


@pytest.mark.parametrize("name", FORMATS)
def test_formats_in_the_tokenizers_own_template(name: str) -> None:
    """Identity: the own template with the tools in words is the own template of turns with those words; results keep their role."""
    tokenizer = make_tokenizer(Family(("<|im_start|>", "<|im_end|>"), None, "<|im_end|>", ""))
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" \
                              "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    given = load_renderer(TemplateConfig(tool_format=name), tokenizer)
    text = given.render(TURNS, (WEATHER,))
    roles = [part.partition("\n")[0] for part in text.split("<|im_start|>")[1:]]
    assert roles == ["system", "user", "assistant", "tool", "assistant"]
    tokenizer.chat_template = given.source
    assert tokenizer.apply_chat_template(
        [{"role": "user", "content": "Oslo?"}, {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {
            "name": "weather", "arguments": {"city": "Oslo", "days": 2}}}]}, {"role": "tool", "content": "rain"},
         {"role": "assistant", "content": "It rains."}], tools=[WEATHER], tokenize=False) == text


def test_a_template_without_a_turn_for_results_refuses_the_format() -> None:
    """One line with the reason."""
    reason = r"tool_format qwen does not go with this template: .*no turn for results of tools; remove tool_format"
    with pytest.raises(InputError, match=reason):
        renderer("gemma", "qwen")


def test_an_unknown_format_lists_the_known_ones() -> None:
    """Text is behaviour."""
    with pytest.raises(InputError, match=r"tool_format: there is no format 'mine'; use one of default, deepseek, .*react"):
        renderer("chatml", "mine")


@pytest.mark.effect("tool_format")
@pytest.mark.parametrize("dialect", [None, "llamafactory", "mindspeed_fsdp2"])
def test_tool_format_through_the_configuration(tmp_path: Path, dialect: str | None) -> None:
    """Oracle: by hand. Without it the tiny model's ChatML writes calls between tags; with `default` they are ReAct's lines."""
    write_model(tmp_path / "model")
    words = [f"model_name_or_path={tmp_path / 'model'}", "template=chatml", "dataset=x", "output_dir=y"]
    texts = []
    for more in ([], ["tool_format=default"]):
        config = read_config([*words, *more], dialect=dialect).config.template
        texts.append(load_renderer(config, tokenizer_of("chatml")).render(TURNS, (WEATHER,)))
    assert '<tool_call>\n{"name": "weather"' in texts[0] and "Action:" not in texts[0].rpartition("Oslo?")[2]
    assert 'assistant\nAction: weather\nAction Input: {"city": "Oslo", "days": 2}<|im_end|>' in texts[1]


@pytest.mark.effect("template_date")
def test_dates_come_from_the_run(tmp_path: Path) -> None:
    """Oracle: by hand. The same date on any day, the run's where it names one, which the exported text then fixes for transformers too."""
    write_model(tmp_path / "model")
    words = [f"model_name_or_path={tmp_path / 'model'}", "dataset=x", "output_dir=y"]
    tokenizer = tokenizer_of("chatml")
    try:
        tokenizer.chat_template = "Today Date: {{ strftime_now('%d %b %Y') }}\n{% for m in messages %}<|im_start|>{{ m.role }}\n" \
            "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        undated, dated = (load_renderer(read_config([*words, *more]).config.template, tokenizer)
                          for more in ([], ["template_date=2025-01-31"]))
        assert undated.render([Message("user", "Hi")]).startswith("Today Date: 26 Jul 2024\n")
        assert dated.render([Message("user", "Hi")]).startswith("Today Date: 31 Jan 2025\n")
        assert undated.source == tokenizer.chat_template
        exported = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], chat_template=dated.source, tokenize=False)
        assert exported == dated.render([Message("user", "Hi")])
        with pytest.raises(InputError, match=r"template_date: 'soon' is not a date; write it as 2024-07-26"):
            load_renderer(TemplateConfig(template_date="soon"), tokenizer)
    finally:
        tokenizer.chat_template = None


def test_recorded_formats_are_those_of_llamafactory() -> None:
    """The file has a text of each of its formats but those which it writes otherwise than their vendors."""
    assert set(RECORDED["tool_formats"]) == {
        "default", "gemma4", "glm4", "glm4_moe", "lfm2", "ling", "llama3", "minimax1", "mistral", "qwen", "qwen3_5"}
    assert json.dumps(RECORDED["tool_formats"]["qwen"]["calls"]).count("tool_call") == 2

"""Whole renders. Oracle: each family's format as its vendor documents it (model card or chat template), written out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.templates.families import FAMILIES, conversation, renderer_of
from tunewright.config.data import TemplateConfig
from tunewright.data.records import Message, ToolCall
from tunewright.data.template_check import tokenizer_without_model
from tunewright.data.template_sources import bundled_names, named_policy
from tunewright.data.templates import load_renderer

TURNS = (("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello."), ("user", "Bye"), ("assistant", "Later."))
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"

# name -> the prompt for the second answer, and the trained render behind it; both with a system prompt.
GOLDEN = {
    "alpaca": ("Be brief.\n\n### Instruction:\nHi\n\n### Response:\nHello.</s>\n\n### Instruction:\nBye\n\n### Response:\n",
               "Later.</s>\n\n"),
    "baichuan": ("Be brief.<reserved_102>Hi<reserved_103>Hello.</s><reserved_102>Bye<reserved_103>", "Later.</s>"),
    "baichuan2": ("Be brief.<reserved_106>Hi<reserved_107>Hello.</s><reserved_106>Bye<reserved_107>", "Later.</s>"),
    "chatglm3": ("[gMASK]sop<|system|>\n Be brief.<|user|>\n Hi<|assistant|>\n Hello.<|user|>\n Bye<|assistant|>",
                 "\n Later.<|user|>"),
    "chatml": ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
               "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n", "Later.<|im_end|>\n"),
    "deepseek": (f"{BOS}Be brief.\n\nUser: Hi\n\nAssistant: Hello.{EOS}User: Bye\n\nAssistant:", f" Later.{EOS}"),
    "deepseek3": (f"{BOS}Be brief.<｜User｜>Hi<｜Assistant｜>Hello.{EOS}<｜User｜>Bye<｜Assistant｜>", f"Later.{EOS}"),
    "deepseek_r1": (f"{BOS}Be brief.<｜User｜>Hi<｜Assistant｜>Hello.{EOS}<｜User｜>Bye<｜Assistant｜><think>\n",
                    f"\n</think>\n\nLater.{EOS}"),
    "default": ("System: Be brief.</s>\nHuman: Hi</s>\nAssistant:Hello.</s>\nHuman: Bye</s>\nAssistant:", "Later.</s>\n"),
    "empty": ("Be brief.HiHello.</s>Bye", "Later.</s>"),
    "gemma": ("<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n"
              "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n", "Later.<end_of_turn>\n"),
    "glm4": ("[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi<|assistant|>\nHello.<|user|>\nBye<|assistant|>", "\nLater.<|user|>"),
    "internlm2": ("<s><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
                  "Hello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n", "Later.<|im_end|>\n"),
    "llama2": ("<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello. </s><s>[INST] Bye [/INST]", " Later. </s>"),
    "llama3": ("<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
               "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
               "Hello.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
               "<|start_header_id|>assistant<|end_header_id|>\n\n", "Later.<|eot_id|>"),
    "mistral": ("<s>[INST] Be brief.\n\nHi[/INST] Hello.</s>[INST] Bye[/INST]", " Later.</s>"),
    "phi3": ("<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello.<|end|>\n<|user|>\nBye<|end|>\n"
             "<|assistant|>\n", "Later.<|end|>\n"),
    "phi4": ("<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|>"
             "<|im_start|>assistant<|im_sep|>Hello.<|im_end|><|im_start|>user<|im_sep|>Bye<|im_end|>"
             "<|im_start|>assistant<|im_sep|>", "Later.<|im_end|>"),
    "qwen2.5": ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
                "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n", "Later.<|im_end|>\n"),
    "qwen3": ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
              "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n", "<think>\n\n</think>\n\nLater.<|im_end|>\n"),
    "smollm2": ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
                "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n", "Later.<|im_end|>\n"),
    "vicuna": ("Be brief. USER: Hi ASSISTANT: Hello.</s>USER: Bye ASSISTANT:", " Later.</s>"),
    "zephyr": ("<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello.</s>\n<|user|>\nBye</s>\n<|assistant|>\n",
               "Later.</s>\n"),
}

# What stands before "<user header>Hi" without a system prompt.
QWEN_DEFAULT = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
SMOL_DEFAULT = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
VICUNA = ("A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
          "polite answers to the user's questions. ")
PROMPT_WITHOUT_SYSTEM = {
    "alpaca": ALPACA + "### Instruction:\nHi\n\n### Response:\n",
    "baichuan": "<reserved_102>Hi<reserved_103>",
    "baichuan2": "<reserved_106>Hi<reserved_107>",
    "chatglm3": "[gMASK]sop<|user|>\n Hi<|assistant|>",
    "chatml": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "deepseek": f"{BOS}User: Hi\n\nAssistant:",
    "deepseek3": f"{BOS}<｜User｜>Hi<｜Assistant｜>",
    "deepseek_r1": f"{BOS}<｜User｜>Hi<｜Assistant｜><think>\n",
    "default": "Human: Hi</s>\nAssistant:",
    "empty": "Hi",
    "gemma": "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
    "glm4": "[gMASK]<sop><|user|>\nHi<|assistant|>",
    "internlm2": "<s><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "llama2": "<s>[INST] Hi [/INST]",
    "llama3": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
              "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s>[INST] Hi[/INST]",
    "phi3": "<|user|>\nHi<|end|>\n<|assistant|>\n",
    "phi4": "<|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>assistant<|im_sep|>",
    "qwen2.5": QWEN_DEFAULT + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "qwen3": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "smollm2": SMOL_DEFAULT + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "vicuna": VICUNA + "USER: Hi ASSISTANT:",
    "zephyr": "<|user|>\nHi</s>\n<|assistant|>\n",
}
WEATHER = {"type": "function", "function": {
    "name": "weather", "description": "Weather of a city", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}
WEATHER_JSON = ('{"type": "function", "function": {"name": "weather", "description": "Weather of a city", "parameters": '
                '{"type": "object", "properties": {"city": {"type": "string"}}}}}')
CALLS = (Message("user", "Oslo?"), Message("assistant", "", tool_calls=(ToolCall("weather", {"city": "Oslo"}, ""),)),
         Message("tool", "rain"), Message("assistant", "It rains."))


RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text("utf-8"))
BY_HAND = {
    "bailing_v2": "<role>SYSTEM</role>Be brief.<|role_end|><role>HUMAN</role>Hi<|role_end|><role>ASSISTANT</role>Hello.<|role_end|>"
                  "<role>HUMAN</role>Bye<|role_end|><role>ASSISTANT</role>Later.<|role_end|>",
    "breeze": "<s>Be brief. [INST] Hi [/INST] Hello.[INST] Bye [/INST] Later.</s>",
    "dots_ocr": "<|system|>Be brief.<|endofsystem|>\n<|user|>Hi<|endofuser|><|assistant|>Hello.<|endofassistant|>"
                "<|user|>Bye<|endofuser|><|assistant|>Later.<|endofassistant|>",
    "falcon": "Be brief.\nUser: Hi\nFalcon:Hello.\nUser: Bye\nFalcon:Later.</s>",
    "fewshot": "Be brief.HiHello.</s>\n\nByeLater.</s>\n\n",
    "ministral3": "<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]Hi[/INST]Hello.</s>[INST]Bye[/INST]Later.</s>",
    "olmo": "</s>Be brief.<|user|>\nHi\n<|assistant|>\nHello.</s>\n<|user|>\nBye\n<|assistant|>\nLater.</s>\n",
    "openchat-3.6": "<s>Be brief.<|start_header_id|>GPT4 Correct User<|end_header_id|>\n\nHi<|eot_id|>"
                    "<|start_header_id|>GPT4 Correct Assistant"
                    "<|end_header_id|>\n\nHello.<|eot_id|><|start_header_id|>GPT4 Correct User<|end_header_id|>\n\nBye<|eot_id|>"
                    "<|start_header_id|>GPT4 Correct Assistant<|end_header_id|>\n\nLater.<|eot_id|>",
    "phi_small": "<|endoftext|><|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello.<|end|>\n<|user|>\nBye<|end|>\n"
                 "<|assistant|>\nLater.<|end|>\n",
    "solar": "### System:\nBe brief.\n\n### User:\nHi\n\n### Assistant:\nHello.</s>\n\n"
             "### User:\nBye\n\n### Assistant:\nLater.</s>\n\n",
    "yi_vl": "Be brief.### Human: Hi\n### Assistant:Hello.\n### Human: Bye\n### Assistant:Later.</s>",
}


def test_every_bundled_template_has_a_golden_render() -> None:
    """The tables of this folder name the same templates; the other names have recorded renders, or share the text of one that has."""
    assert set(GOLDEN) == set(PROMPT_WITHOUT_SYSTEM) == set(FAMILIES)
    recorded = {named_policy(name).name for name in (*RECORDED["llamafactory"], *RECORDED["vendors"])}
    assert set(bundled_names()) - set(GOLDEN) - recorded == set(BY_HAND)


@pytest.mark.parametrize("name", BY_HAND)
def test_render_of_formats_that_are_written_otherwise_than_in_llamafactory(name: str) -> None:
    """Oracle: by hand, from the model cards; LLaMA-Factory leaves out a space, a line end, or the token that closes an answer."""
    tokenizer = tokenizer_without_model(name)
    assert load_renderer(TemplateConfig(template=name), tokenizer).render(conversation(*TURNS).messages) == BY_HAND[name]


@pytest.mark.parametrize("name", GOLDEN)
def test_render_with_system_prompt(name: str) -> None:
    """Oracle: by hand. The prompt for the last answer is the same text that training puts before it."""
    renderer, (prompt, answer) = renderer_of(name), GOLDEN[name]
    turns = conversation(*TURNS).messages
    assert renderer.render(turns[:-1], generate=True) == prompt
    assert renderer.render(turns) == prompt + answer
    assert renderer.render_spans(conversation(*TURNS)).text == prompt + answer


@pytest.mark.parametrize("name", GOLDEN)
def test_prompt_without_system_prompt(name: str) -> None:
    """Oracle: by hand; Qwen 2.5, SmolLM2, Alpaca and Vicuna write their own system text, the others none."""
    assert renderer_of(name).render([Message("user", "Hi")], generate=True) == PROMPT_WITHOUT_SYSTEM[name]


@pytest.mark.parametrize(("name", "expected"), [
    ("qwen2.5", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
    ("smollm2", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
    ("alpaca", "### Instruction:\nHi\n\n### Response:\n"),
    ("vicuna", "USER: Hi ASSISTANT:"),
])
def test_empty_default_system_means_none(name: str, expected: str) -> None:
    """Oracle: the golden prompts above without their first block."""
    assert renderer_of(name, default_system="").render([Message("user", "Hi")], generate=True) == expected


@pytest.mark.effect("default_system")
@pytest.mark.parametrize("name", GOLDEN)
def test_default_system_is_the_system_prompt_of_rows_without_one(name: str) -> None:
    """Identity: the same render as with a system message of that text; a row's own system prompt is kept."""
    plain, given = renderer_of(name), renderer_of(name, default_system="Be brief.")
    turns = conversation(*TURNS).messages
    assert given.render(turns[1:]) == plain.render(turns)
    assert given.render([Message("system", "Rhyme."), *turns[1:]]) == plain.render([Message("system", "Rhyme."), *turns[1:]])


HERMES = ("<|im_start|>system\n{system}# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
          "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
          + WEATHER_JSON.replace("{", "{{").replace("}", "}}")
          + "\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> "
          'XML tags:\n<tool_call>\n{{"name": <function-name>, "arguments": <args-json-object>}}\n</tool_call><|im_end|>\n'
          '<|im_start|>user\nOslo?<|im_end|>\n<|im_start|>assistant\n<tool_call>\n{{"name": "weather", "arguments": {{"city": "Oslo"}}}}\n'
          "</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\nrain\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
          "{thought}It rains.<|im_end|>\n")
INDENTED = """{
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {
                    "type": "string"
                }
            }
        }
    }
}"""
GLM_INDENTED = "\n".join(line[4:] for line in INDENTED.split("\n")[3:-1])
TOOL_GOLDEN = {
    "chatml": (HERMES.format(system="", thought=""),
               ['<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>', "It rains.<|im_end|>"]),
    "qwen2.5": (HERMES.format(system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.\n\n", thought=""),
                ['<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>', "It rains.<|im_end|>"]),
    "qwen3": (HERMES.format(system="", thought="<think>\n\n</think>\n\n"),
              ['<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>',
               "<think>\n\n</think>\n\nIt rains.<|im_end|>"]),
    "llama3": ("<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\n\nYou have access to the following "
               "functions. To call a function, please respond with JSON for a function call. Respond in the format "
               '{"name": function name, "parameters": dictionary of argument name and its value}. Do not use variables.\n\n'
               + INDENTED + "\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nOslo?<|eot_id|>"
               '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "weather", "parameters": {"city": "Oslo"}}<|eot_id|>'
               "<|start_header_id|>ipython<|end_header_id|>\n\nrain<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
               "It rains.<|eot_id|>", ['{"name": "weather", "parameters": {"city": "Oslo"}}<|eot_id|>', "It rains.<|eot_id|>"]),
    "mistral": ("<s>[AVAILABLE_TOOLS] [" + WEATHER_JSON + "][/AVAILABLE_TOOLS][INST] Oslo?[/INST][TOOL_CALLS] "
                '[{"name": "weather", "arguments": {"city": "Oslo"}, "id": "call00000"}]</s>'
                '[TOOL_RESULTS] {"content": rain, "call_id": "call00000"}[/TOOL_RESULTS] It rains.</s>',
                ['[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Oslo"}, "id": "call00000"}]</s>', " It rains.</s>"]),
    "glm4": ("[gMASK]<sop><|system|>\n你是一个名为 GLM-4 的人工智能助手。你是基于智谱AI训练的语言模型 GLM-4 模型开发的，"
             "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具\n\n## weather\n\n" + "{\n" + GLM_INDENTED
             + "\n在调用上述函数时，请使用 Json 格式表示调用的参数。<|user|>\nOslo?<|assistant|>weather\n"
             '{"city": "Oslo"}<|observation|>\nrain<|assistant|>\nIt rains.<|user|>',
             ['weather\n{"city": "Oslo"}<|observation|>', "\nIt rains.<|user|>"]),
}


@pytest.mark.parametrize("name", TOOL_GOLDEN)
def test_tool_calls(name: str) -> None:
    """Oracle: by hand. Calls and final answers are trained with what closes them; results and definitions are not."""
    rendered = renderer_of(name).render_spans(conversation(*CALLS, tools=(WEATHER,)))
    text, trained = TOOL_GOLDEN[name]
    assert rendered.text == text
    assert [rendered.text[span.start : span.end] for span in rendered.spans] == trained


@pytest.mark.parametrize("name", TOOL_GOLDEN)
def test_bare_tool_definitions(name: str) -> None:
    """Identity: a definition without its `{"type": "function"}` wrapper renders as with it."""
    renderer = renderer_of(name)
    assert renderer.render(CALLS, (WEATHER["function"],)) == renderer.render(CALLS, (WEATHER,))


def test_parallel_calls_and_text_beside_them() -> None:
    """Oracle: Qwen 2.5's chat template, by hand: each call in its own block, results merged into one user turn."""
    calls = (ToolCall("weather", {"city": "Oslo"}, ""), ToolCall("weather", {"city": "Rom"}, ""))
    turns = (Message("user", "Both?"), Message("assistant", "Wait.", tool_calls=calls), Message("tool", "rain"), Message("tool", "sun"),
             Message("assistant", "Rain, sun."))
    rendered = renderer_of("chatml").render(turns)
    assert rendered == (
        "<|im_start|>user\nBoth?<|im_end|>\n<|im_start|>assistant\nWait.\n"
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Rom"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nrain\n</tool_response>\n<tool_response>\nsun\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\nRain, sun.<|im_end|>\n")

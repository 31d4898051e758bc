"""All names of templates: LLaMA-Factory's are known, and what they render is what others render.

Oracles: texts recorded from LLaMA-Factory 0.9.5 (names whose render is the same there), and from vendors' own templates as TRL, axolotl
and llama.cpp ship them (`recorded.json` says which); markers in random conversations.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from tests.templates.families import ORIGIN, conversation
from tunewright.config.data import TemplateConfig
from tunewright.data.collate import Example, collate_padded
from tunewright.data.masks import MaskPolicy
from tunewright.data.records import IGNORE_INDEX, Conversation, Message, ToolCall
from tunewright.data.template_check import bare_tokenizer
from tunewright.data.template_sources import bundled_source, named_policy
from tunewright.data.template_table import policies
from tunewright.data.template_unopened import check_template
from tunewright.data.templates import Renderer, load_renderer
from tunewright.data.tokenize import encode_conversation
from tunewright.errors import InputError

NAMES = re.findall(r"\S+", """
alpaca bailing bailing_v2 breeze chatglm3 chatml chatml_de cohere cpm4 dbrx deepseek deepseek3 deepseekr1 hy3 deepseekcoder default
dots_ocr empty ernie ernie_nothink ernie_vl exaone falcon falcon_h1 fewshot gemma gemma2 gemma3 gemma3n gemma4 gemma4n glm4 glm4_moe
glm4v glm4_5v glm_ocr glm4_7 glmz1 gpt_oss granite3 granite3_vision granite4 index hunyuan hunyuan_small hy_dense_1_8b hy_dense_7b
intern2 intern_vl intern_s1 keye_vl kimi_vl lfm2 lfm2_vl llama2 llama2_zh llama3 llama4 mllama moonlight moss_vl llava llava_next
llava_next_llama3 llava_next_mistral llava_next_qwen llava_next_yi llava_next_video llava_next_video_mistral llava_next_video_yi mimo
mimo_v2 mimo_vl minicpm_v minicpm_v_4_6 minicpm_o minimax1 minimax2 ministral mistral mistral_small ministral3 olmo openchat
openchat-3.6 opencoder paligemma paligemma_chat phi phi_small phi4 phi4_mini pixtral qwen qwen3 qwen3_nothink qwen2_audio qwen2_omni
qwen3_omni qwen3_omni_nothink qwen2_vl qwen3_vl qwen3_vl_nothink qwen3_5 qwen3_5_nothink qwen3_6 sailor seed_coder seed_oss smollm
smollm2 solar starchat telechat2 vicuna video_llava xuanyuan yi yi_vl youtu youtu_vl yuan zephyr aeva
""")
RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text("utf-8"))
OURS = [name for name, policy in policies().items() if policy.tokenizer is None]
OPEN = {"bailing", "breeze", "falcon", "index", "yi_vl"}
"""Templates that close the last answer only, as LLaMA-Factory writes them."""

WEATHER = ({"type": "function", "function": {"name": "weather", "description": "Weather of a city", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "description": "A city"}, "days": {"type": "integer"}},
    "required": ["city"]}}},)
CALL = Message("assistant", "", tool_calls=(ToolCall("weather", {"city": "Oslo", "days": 2}, ""),))
TURNS = {
    "one": [("user", "Hi"), ("assistant", "Yes")],
    "two": [("user", "Hi"), ("assistant", "Yes"), ("user", "Bye"), ("assistant", "No")],
    "sys": [("system", "Be brief"), ("user", "Hi"), ("assistant", "Yes")],
    "sys2": [("system", "Be brief"), ("user", "Hi"), ("assistant", "Yes"), ("user", "Bye"), ("assistant", "No")],
    "think": [("user", "Hi"), Message("assistant", "Yes", reasoning="Because"), ("user", "B"), Message("assistant", "No", reasoning="Why")],
    "tools": [("user", "Oslo?")], "systools": [("system", "Be brief"), ("user", "Oslo?")],
    "call": [("user", "Oslo?"), CALL, ("tool", "rain"), ("assistant", "It rains")],
    "prompt": [("user", "Hi")], "off": [("user", "Hi")],
}
BOUNDS = {"seed_oss": ("<seed:bos>", "<seed:eos>"), "granite4": ("<|START|>", "<|end_of_text|>")}


@cache
def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    """A tokenizer of bytes with the control tokens of a template."""
    tokenizer = bare_tokenizer(bundled_source(name).text, bundled_source(name).stops)
    if name in BOUNDS:
        tokenizer.bos_token, tokenizer.eos_token = BOUNDS[name]
    return tokenizer


@cache
def renderer_of(name: str, thinking: bool | None = True) -> Renderer:
    """The renderer of a name."""
    return load_renderer(TemplateConfig(template=name, enable_thinking=thinking), tokenizer_of(name))


def test_all_names_are_known() -> None:
    """LLaMA-Factory registers 124 names; each is a row of the table or an alias."""
    assert len(set(NAMES)) == 124
    for name in NAMES:
        policy = named_policy(name)
        assert policy.tokenizer is None or len(policy.tokenizer) > 10
        check_template(name, None)


def test_a_name_for_the_tokenizers_own_template(caplog: pytest.LogCaptureFixture) -> None:
    """With the tokenizer's template it is used and the reason is told; without one the run is refused in one line."""
    tokenizer = bare_tokenizer("<|im_end|>")
    with pytest.raises(InputError, match=r"template gemma4 means the tokenizer's own .* because .*; the tokenizer has none; set"):
        load_renderer(TemplateConfig(template="gemma4"), tokenizer)
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}" \
                              "{% if add_generation_prompt %}[assistant]{% endif %}"
    renderer = load_renderer(TemplateConfig(template="gemma4"), tokenizer)
    assert renderer.render([Message("user", "Hi")], generate=True) == "[user]Hi<|im_end|>[assistant]"
    assert "template gemma4: the tokenizer's own chat template is used, because" in caplog.text


@pytest.mark.parametrize("name", RECORDED["llamafactory"])
def test_renders_as_llamafactory(name: str) -> None:
    """Oracle: LLaMA-Factory 0.9.5, two turns with and without a system prompt."""
    turns = [Message("user", "U1"), Message("assistant", "A1"), Message("user", "U2"), Message("assistant", "A2")]
    renderer = renderer_of(named_policy(name).name)
    both = (renderer.render([Message("system", "SYS"), *turns]), renderer.render(turns))
    said = [text.replace("<seed:bos>", "<s>") for text in both]
    bos, eos = BOUNDS.get(name, ("<s>", "</s>"))
    recorded = RECORDED["llamafactory"][name]
    expected = [text.replace("<s>", bos).replace("</s>", eos).replace("<seed:bos>", "<s>") for text in recorded]
    assert said == expected


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, texts in RECORDED["vendors"].items() for kind in texts if kind != "from"])
def test_renders_as_its_vendor(name: str, kind: str) -> None:
    """Oracle: the vendor's own template, rendered by transformers; thinking is on but for `off`."""
    messages = conversation(*TURNS[kind]).messages
    tools = WEATHER if kind in ("tools", "systools", "call") else ()
    renderer = renderer_of(name, kind != "off")
    assert renderer.render(messages, tools, generate=messages[-1].role == "user") == RECORDED["vendors"][name][kind]


JUNK = st.lists(st.sampled_from([" ", "\n", "你好", "🙂", "<|im_end|>", "</s>", "[INST]", "<|user|>", "<|end|>", "<|return|>", "a", "é",
                                 "{}", '"', "<|channel|>"]), max_size=3).map("".join)
ROUNDS = st.lists(st.tuples(JUNK, JUNK, st.booleans()), min_size=1, max_size=3)


def marked(number: int, role: str) -> str:
    """A word that no other message has."""
    return f"q{role[0]}{number}q"


@pytest.mark.parametrize("name", OURS)
@settings(max_examples=5, deadline=None, derandomize=True)
@given(rounds=ROUNDS, system=st.booleans(), masks=st.builds(MaskPolicy, st.booleans(), st.booleans()),
       thinking=st.sampled_from([True, False, None]))
def test_exactly_the_answers_are_trained(
    name: str, rounds: list[tuple[str, str, bool]], system: bool, masks: MaskPolicy, thinking: bool | None) -> None:
    """Oracle: each message holds a word of its own; the trained tokens spell the words of the messages that the masks choose, each once,
    and each answer's terminator once. With train_on_prompt everything else is trained too, but not a masked answer's words."""
    turns = [Message("system", marked(0, "system"))] * system
    for number, (ask, answer, trained) in enumerate(rounds):
        turns.append(Message("user", f"{marked(number, 'user')}{ask}"))
        turns.append(Message("assistant", f"{marked(number, 'assistant')}{answer}", trained=trained))
    last = len(rounds) - 1
    chosen = {number for number, (_, _, trained) in enumerate(rounds) if trained and (number == last or not masks.mask_history)}
    renderer, tokenizer = renderer_of(name, thinking), tokenizer_of(name)
    ids, labels = encode_conversation(Conversation(tuple(turns), ORIGIN), renderer, tokenizer, masks)
    text = tokenizer.decode([label for label in labels if label != IGNORE_INDEX])
    words = [re.match("q.*?q", turn.content)[0] for turn in turns]
    expected = [number in chosen for number in range(len(rounds))]
    # Nothing precedes the first token, so that it is never trained: with no other text before it, a word loses its first letter.
    beheaded = words[0] if tokenizer.decode(ids).startswith(words[0]) else ""
    for word, turn in zip(words, turns, strict=True):
        trained = expected[int(word[2])] if turn.role == "assistant" else masks.train_on_prompt and word != beheaded
        assert text.count(word) == int(trained)
    ends = {token for end in renderer.profile.terminators if (token := tokenizer.added_tokens_encoder.get(end.strip())) is not None}
    if ends and not masks.train_on_prompt:
        assert sum(label in ends for label in labels) == len([number for number in chosen if number == last or name not in OPEN])
    assert all(label in (one, IGNORE_INDEX) for one, label in zip(ids, labels, strict=True))
    assert padded_targets(ids, labels) == [*labels[1:], *[IGNORE_INDEX] * 4]


def padded_targets(ids: list[int], labels: list[int]) -> list[int]:
    """What the positions of a row are to predict, in a batch with one that is three tokens longer."""
    rows = [Example(np.array(one, np.int32), np.array(other, np.int32), np.array([0, len(one)], np.int32), 0)
            for one, other in ((ids, labels), ([*ids, 1, 1, 1], [*labels, 1, 1, 1]))]
    return collate_padded(rows, pad_token_id=0).targets[0].tolist()


@pytest.mark.parametrize("name", ["kimi_vl", "seed_oss", "gpt_oss", "glm4_moe", "minimax2"])
def test_thoughts_stand_between_the_templates_own_words(name: str) -> None:
    """Oracle: the vendors' documented words. A thought in the row's text, in `<think>` tags or in these words, is the same thought."""
    opened, closed = {
        "kimi_vl": ("◁think▷", "◁/think▷"), "seed_oss": ("<seed:think>", "</seed:think>"), "glm4_moe": ("<think>", "</think>"),
        "gpt_oss": ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        "minimax2": ("<think>\n", "\n</think>")}[name]
    renderer = renderer_of(name)
    rows = [Message("assistant", "Yes", reasoning="Hm"), Message("assistant", f"{opened}Hm{closed}Yes"),
            Message("assistant", "<think>\nHm\n</think>\n\nYes")]
    texts = {renderer.render([Message("user", "Hi"), row]) for row in rows}
    assert len(texts) == 1
    assert f"{opened}Hm{closed}" in texts.pop()
    assert "Hm" not in renderer_of(name, False).render([Message("user", "Hi"), rows[0]])

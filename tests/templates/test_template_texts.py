"""Which templates do nothing with texts but place them. Oracles: jinja itself, on texts that differ, and templates written to be caught."""

from __future__ import annotations

import random

import pytest

from tests.templates.families import FAMILIES, ORIGIN, renderer_of, tokenizer_of
from tests.templates.test_fast_path import WORDS
from tunewright.data.masks import ANSWERS_ONLY
from tunewright.data.records import Conversation, Message
from tunewright.data.template_engine import Jinja
from tunewright.data.template_texts import only_places_texts
from tunewright.data.tokenize import encode_conversations, encode_conversations_fast

EACH = "{% for message in messages %}%s{% endfor %}"

PLACES = [
    "{{ '<|' ~ message.role ~ '|>' ~ message.content }}",
    "{{ message['role'] + ': ' + message['content'] | trim + '\\n' }}",
    "{{ message.content.strip() }}",
    "{{ message.get('content') }}",
    "{% if message.role == 'user' %}{{ message.content }}{% else %}{{ 'A: ' + message.content }}{% endif %}",
    "{% set text = message.content %}{{ text }}",
    "{% if message.content is string %}{{ message.content }}{% endif %}",
    "{% if message.content %}{{ message.content }}{% endif %}",
    "{{ message.content or '' }}{{ eos_token if message.content and loop.last }}",
    "{% if message.content != '' and message.content is not none %}{{ message.content }}{% endif %}",
    "{% if 'tool_calls' in message %}x{% endif %}{{ message.content | default('') }}",
    "{% if loop.previtem is defined and loop.previtem.role == 'user' %}+{% endif %}{{ message.content }}",
    "{{ messages[loop.index0].content }}{{ messages | length }}",
    "{% if message.role not in ['user', 'assistant', 'system'] %}{{ raise_exception(message.content) }}{% endif %}{{ message.content }}",
    "{{ strftime_now('%d %b %Y') }}{{ message.content }}{{ tools | tojson if tools else '' }}",
    "{% for call in message.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}{{ message.content }}",
]

LOOKS = [
    "{{ message.content | upper }}", "{{ message.content | tojson }}", "{{ message.content | replace('a', 'b') }}",
    "{{ message.content.split('</think>')[-1] }}", "{{ message.content.lstrip('\\n') }}", "{{ message.content[:3] }}",
    "{{ message.content | trim('x') }}", "{{ message.content | length }}", "{{ '%s' | format(message.content) }}",
    "{{ '%s' % message.content }}", "{{ message.content * 2 }}", "{{ message | tojson }}", "{{ message }}", "{{ messages }}",
    "{% if 'x' in message.content %}y{% endif %}{{ message.content }}", "{% if message.content == 'x' %}y{% endif %}",
    "{% if message.content in ['x'] %}y{% endif %}", "{% if message.content is eq('x') %}y{% endif %}",
    "{% if message.content.startswith('x') %}y{% endif %}", "{% if message.content < 'x' %}y{% endif %}",
    "{% if '' == message.content == 'x' %}y{% endif %}", "{% if (message.content ~ 'a') is in(['xa']) %}y{% endif %}",
    "{% for letter in message.content %}{{ letter }}{% endfor %}", "{% for key in message %}{{ message[key] }}{% endfor %}",
    "{% for key, value in message.items() %}{{ value }}{% endfor %}", "{% set f = message.items %}{{ f() }}",
    "{{ message['con' ~ 'tent'] }}", "{{ {message.content: 1} }}", "{{ {'x': 1}[message.content] }}", "{{ [message.content] }}",
    "{{ ('<b>' | safe) + message.content }}", "{{ message.content | e }}", "{{ messages | map(attribute='content') | join }}",
    "{{ messages | selectattr('content', 'eq', 'x') | list | length }}", "{% set loop = messages[0] %}{{ loop.content }}",
    "{% set l = loop %}{{ l.previtem.content.upper() if l.previtem }}",
    "{% set ns = namespace(t='') %}{% set ns.t = message.content %}{{ ns.t | upper }}",
    "{% set ns = namespace(t='') %}{% set ns.t = message.content %}{% set other = ns %}{{ other.t | upper }}",
    "{% macro m(t) %}{{ t | upper }}{% endmacro %}{{ m(message.content) }}",
    "{% macro m(t) %}{{ t }}{% endmacro %}{% set f = m %}{{ f(message.content) }}",
    "{% macro m() %}{{ varargs[0] }}{% endmacro %}{{ m(message.content) }}",
    "{% macro m() %}{{ kwargs['t'] | upper }}{% endmacro %}{{ m(t=message.content) }}",
    "{% macro m() %}{{ messages[0].content }}{% endmacro %}{{ m() | upper }}",
    "{% set t %}{{ message.content }}{% endset %}{{ t | upper }}", "{% filter upper %}{{ message.content }}{% endfilter %}",
    "{% autoescape true %}{{ message.content }}{% endautoescape %}", "{{ lipsum() }}{{ message.content }}",
    "{{ ['a', 'b'] | random }}{{ message.content }}", "{% set a, b = message.content, 1 %}{{ a | upper }}",
    "{% for loop, x in [({'index0': 'content'}, 1)] %}{{ message[loop.index0] | upper }}{% endfor %}",
    "{{ (message.content if loop.first else messages) | length }}", "{% set x = message %}{% set x = x.content %}{{ x }}",
    "{% set n = t | default('') %}{{ n | upper }}{% set t = message.content %}",
]


@pytest.mark.parametrize("inner", PLACES)
def test_what_only_places(inner: str) -> None:
    """Certain, and true: for roles and white space alike, jinja writes the same around any texts."""
    source = EACH.replace("%s", inner)
    assert only_places_texts(source)
    draw = random.Random(4)
    jinja = Jinja("x", source, {"bos_token": "<s>", "eos_token": "</s>"})
    roles = ("system", "user", "assistant", "user", "assistant")
    marks = ["\ue000", "\ue001", "\ue002", "\ue003", "\ue004"]
    frame = jinja.render([Message(role, mark) for role, mark in zip(roles, marks, strict=True)], (), generate=False)
    for _ in range(20):
        texts = ["x" + "".join(draw.choices(WORDS, k=draw.randint(0, 4))) + "y" for _ in roles]
        expected = frame
        for mark, text in zip(marks, texts, strict=True):
            expected = expected.replace(mark, text)
        turns = [Message(role, text) for role, text in zip(roles, texts, strict=True)]  # type: ignore[arg-type]
        assert jinja.render(turns, (), generate=False) == expected


@pytest.mark.parametrize("inner", LOOKS)
def test_what_may_look_is_not_certain(inner: str) -> None:
    assert not only_places_texts(EACH.replace("%s", inner))


@pytest.mark.parametrize("source", ["{% for %}", "{{ messages[0].content | nofilter }}", "{% extends 'x' %}", "{% include 'x' %}",
                                    "{% import 'x' as y %}{{ y.m(messages) }}"])
def test_what_is_no_template_of_ours_is_not_certain(source: str) -> None:
    assert not only_places_texts(source)


def test_most_families_are_certain() -> None:
    certain = [name for name in FAMILIES if only_places_texts(renderer_of(name).jinja.text)]
    assert {"chatml", "llama3", "phi4", "mistral"} <= set(certain)


@pytest.mark.parametrize("thinking", [False, None, True])
@pytest.mark.parametrize("name", ["qwen3", "chatml"])
def test_an_answer_that_is_all_thought(name: str, thinking: bool | None) -> None:
    """What is left of it is no text; it goes the exact way. Oracle: that way, or its refusal."""
    from tests.templates.test_fast_path import answer

    renderer, tokenizer = renderer_of(name, enable_thinking=thinking), tokenizer_of(name)
    for said in ("<think></think>", "<think>\n\n</think>\n\n", "<think>why</think>", "<think> </think> yes"):
        turns = (Message("user", "ask"), Message("assistant", said))
        row = Conversation((*turns, *turns), ORIGIN)
        exact = answer(encode_conversations, [row], renderer, tokenizer, ANSWERS_ONLY)
        fast = answer(encode_conversations_fast, [row], renderer, tokenizer, ANSWERS_ONLY)
        assert ([([*map(int, ids)], [*map(int, labels)]) for ids, labels in fast] if isinstance(fast, list) else fast) == exact


def test_a_speakers_name_goes_the_exact_way() -> None:
    """It is no part of a shape, and a template may write it."""
    renderer = renderer_of("chatml")
    plain = (Message("user", "ask"), Message("assistant", "yes"))
    assert renderer._shapes.rendered(Conversation(plain, ORIGIN), ANSWERS_ONLY) is not None
    named = (Message("user", "ask", name="Ann"), plain[1])
    assert renderer._shapes.rendered(Conversation(named, ORIGIN), ANSWERS_ONLY) is None

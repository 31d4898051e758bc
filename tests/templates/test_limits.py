"""Every render is limited, not only the first: templates that behave until a turn, a word or a call comes are stopped in one line."""

from __future__ import annotations

import re
import threading
import time

import pytest

from tests.templates.families import conversation
from tunewright.data.records import Message, ToolCall
from tunewright.data.template_engine import Jinja
from tunewright.data.template_guard import RenderLimit, watched
from tunewright.errors import InputError

CHAT = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
DOUBLED = "{% set n = namespace(s='aaaaaaaa') %}{% for i in range(90) %}{% set n.s = n.s ~ n.s %}{% endfor %}"
SHARED = "{% set n = namespace(x=['a']) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}"
SLOW = {
    "loops at the fifth turn": f"{{% if messages | length > 4 %}}{LOOPS}{{% endif %}}",
    "loops at a word": f"{{% if 'falcon' in messages[0].content %}}{LOOPS}{{% endif %}}",
    "a text doubled at a call": f"{{% if messages[1].tool_calls %}}{DOUBLED}{{% endif %}}",
    "lists of the same lists at a call": f"{{% if messages[1].tool_calls %}}{SHARED}{{% endif %}}",
}
"""Stopped by the clock or by the memory that they take."""
MADE = {
    "a long text": "{{ 'a' * 3000000000 }}",
    "a long list": "{{ ([0] * 3000000000) | length }}",
    "a text of a text": "{% set s = 'a' * 1000000 %}{{ s * 1000000 }}",
    "a large number": "{{ 7 ** (10 ** 8) }}",
    "a number squared": "{% set n = namespace(x=7) %}{% for i in range(90) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "a wide filter": "{{ 'a' | center(3000000000) }}",
    "a wide method": "{{ 'a'.ljust(3000000000) }}",
    "a wide number": "{% set width = 3000000000 %}{{ '7'.zfill(width) }}",
    "a wide format": "{{ '%3000000000d' | format(1) }}",
    "a wide format by a star": "{{ '%*d' % (3000000000, 1) }}",
    "a wide format method": "{{ '{:3000000000}'.format(1) }}",
    "a wide format by an argument": "{{ '{:{}}'.format(1, 3000000000) }}",
    "a wide JSON": "{{ {'a': [1]} | tojson(indent=3000000000) }}",
    "a wide indent": "{{ 'a\nb' | indent(3000000000) }}",
    "a batch": "{{ [1] | batch(3000000000, 'x') | list }}",
    "a replacement": "{% set s = 'a' * 1000000 %}{{ s | replace('a', s) }}",
    "a replacement by a method": "{% set s = 'a' * 1000000 %}{{ s.replace('a', s) }}",
    "a replacement in an escaped text": "{% set s = 'a' * 1000000 %}{{ (s | escape).replace('a', s) }}",
    "a join": "{% set s = 'a' * 1000000 %}{{ ([s] * 1000000) | join }}",
    "a join by what is between": "{% set s = 'a' * 1000000 %}{{ range(99999) | join(s) }}",
    "a join by a method": "{% set s = 'a' * 1000000 %}{{ ''.join([s] * 1000000) }}",
    "a translation": "{% set s = 'a' * 1000000 %}{{ s.translate({97: s}) }}",
    "a text written by a format again and again": "{{ ('{0}' * 99999).format('a' * 1000000) }}",
    "the same by an operator": "{{ ('%(a)s' * 99999) % {'a': 'a' * 1000000} }}",
    "the same by a filter": "{% set s = 'a' * 1000000 %}{{ '%s%s' | format(s, s) | length }}{{ ('%(a)s' * 99999) | format(a=s) }}",
    "formats of three digits are let pass, four are not": "{{ ('%999d' % 1) | length }}{{ '%1000d' % 1 }}",
    "a wide indent of many lines": "{{ ('\n' * 1000000) | indent(1000) }}",
    "an indent by a text": "{{ ('\n' * 1000000) | indent('a' * 1000) }}",
    "a text between words": "{{ ('a ' * 500000) | wordwrap(1, wrapstring='b' * 1000) }}",
    "an expansion of tabs": "{% set s = '\t' * 1000000 %}{{ s.expandtabs(1000) }}",
    "an expansion of tabs by name": "{% set s = '\t' * 1000000 %}{{ s.expandtabs(tabsize=1000) }}",
    "a sum of lists": "{{ ([[0] * 1000000] * 99999) | sum(start=[]) | length }}",
    "a JSON of the same lists": "{% set n = namespace(x=['a']) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
                                "{{ n.x | tojson }}",
    "an indented JSON": "{{ [1] | tojson(indent=1000) }}",
    "a render": "{% set s = 'a' * 1000000 %}{% for i in range(99999) %}{{ s }}{% endfor %}",
    "a block": "{% set t %}{% set s = 'a' * 1000000 %}{% for i in range(99999) %}{{ s }}{% endfor %}{% endset %}",
}
"""Stopped before they are made."""
HONEST = {
    "{{ '-' * 20 }}": "-" * 20, "{{ [1, 2] * 2 }}": "[1, 2, 1, 2]", "{{ 3 * 4 }}": "12", "{{ 1.5 * 2 }}": "3.0", "{{ 2 ** 10 }}": "1024",
    "{{ 7 % 3 }}": "1", "{{ '%05d' % 42 }}": "00042", "{{ '%s!' | format('a') }}": "a!", "{{ '{:>4}'.format(7) }}": "   7",
    "{{ 'ab'.replace('b', 'c') }}": "ac", "{{ 'abab' | replace('a', 'x', 1) }}": "xbab", "{{ ['a', 'b'] | join(', ') }}": "a, b",
    "{{ ', '.join(['a', 'b']) }}": "a, b", "{{ messages | map(attribute='role') | join }}": "user",
    "{{ [[1, 'a']] | join('-', attribute=1) }}": "a", "{{ 'x'.translate({120: 'yy'}) }}": "yy", "{{ 'a' | center(5) }}": "  a  ",
    "{% for a in ' x ' %}{% set b = a %}{{ b.strip() }}{% endfor %}": "x", "{{ ' x'.split(sep='x') | length }}": "2",
    "{{ {'a': [1]} | tojson(indent=1) }}": '{\n "a": [\n  1\n ]\n}', "{{ 'a\nb' | indent(2) }}": "a\n  b",
}
"""Template -> what Python's own operators and methods make of it."""
ASKED = (Message("user", "Uone"),)
CALL = (*ASKED, Message("assistant", "", tool_calls=(ToolCall("look", {}, "0"),)))


def jinja(text: str) -> Jinja:
    return Jinja("chat.jinja", text + CHAT, {})


def stopped(text: str, messages: tuple[Message, ...]) -> str:
    begin = time.process_time()
    with pytest.raises(InputError) as refused:
        jinja(text).render(messages, (), generate=False)
    assert time.process_time() - begin < 8
    return str(refused.value)


@pytest.mark.parametrize("name", SLOW)
def test_later_renders_are_watched(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Harmless on a short conversation, stopped on the one that they wait for. A limit of 0.3 s in the place of 5 s, to be quick."""
    monkeypatch.setattr("tunewright.data.template_guard.RENDER_CPU_SECONDS", 0.3)
    monkeypatch.setattr("tunewright.data.template_guard.MEMORY_BYTES", 64 * 1024**2)
    waited = {"loops at the fifth turn": conversation(*[("user", "a"), ("assistant", "b")] * 3).messages,
              "loops at a word": (Message("user", "a falcon"),)}.get(name, CALL)
    plain = conversation(("user", "a"), ("assistant", "b")).messages
    assert jinja(SLOW[name]).render(plain, (), generate=False) == "user: a\nassistant: b\n"
    assert re.fullmatch(r"template chat\.jinja was stopped: it needs more than (0\.3 s|64 MB) for this conversation; use another template, "
                        r"or take the row out", stopped(SLOW[name], waited))


@pytest.mark.parametrize("name", MADE)
def test_nothing_large_is_made_at_once(name: str) -> None:
    """One line that says what; in less time than making it would take."""
    begin = time.process_time()
    assert re.fullmatch(r"template chat\.jinja was stopped: it makes a? ?[\w ']+; use another template, or take the row out",
                        stopped(MADE[name], ASKED))
    assert time.process_time() - begin < 1


def test_honest_templates_are_as_before() -> None:
    """What the limits look at, in sizes that templates of people have; the results are those of Python's own operators."""
    assert jinja("".join(HONEST) + "\n").render(ASKED, (), generate=False) == "".join(HONEST.values()) + "\nuser: Uone\n"


def test_outside_the_main_thread_there_is_no_clock() -> None:
    """Signals cannot reach another thread: the render goes on, bounded in what it makes."""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(jinja("").render(ASKED, (), generate=False)))
    thread.start()
    thread.join()
    assert found == ["user: Uone\n"]


def test_a_template_cannot_catch_its_end() -> None:
    """The end is no `Exception`, so that what a template calls lets it through."""
    assert not issubclass(RenderLimit, Exception)
    assert watched(lambda: 7) == 7

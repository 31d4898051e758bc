"""Templates that would harm are refused in one line. Attacks are public ones on jinja chat templates."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.templates.families import conversation, tokenizer_of
from tunewright.config.data import TemplateConfig
from tunewright.data.templates import load_renderer
from tunewright.errors import InputError

CHAT = ("{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
BOMBS = {
    "needs more than 2 s or 512 MB": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}" + CHAT,
    "was stopped: it makes a number of thousands of digits": "{% set n = 7 ** (10 ** 8) %}" + CHAT,
    "was stopped: it makes too much in one multiplication": "{% set s = 'a' * 3000000000 %}" + CHAT,
}
ESCAPES = {
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}" + CHAT,
    "globals": "{{ cycler.__init__.__globals__.os.popen('id').read() }}" + CHAT,
    "attr filter": "{{ ''|attr('__class__') | attr('__base__') | attr('__subclasses__')() }}" + CHAT,
    "format": "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}" + CHAT,
}
WRONG = {
    "does not begin with the prompt": CHAT.replace("<|im_start|>assistant\n{% endif", "<|im_start|>model\n{% endif"),
    "ignores add_generation_prompt": CHAT.split("{% if")[0],
    "cannot be found in its render": CHAT.replace("message.content", "message.content | upper"),
    "is not valid jinja": CHAT + "{% if %}",
    "larger than 64 kB": CHAT + "{# " + "x" * 65536 + " #}",
}


def load(tmp_path: Path, text: str) -> object:
    """The template as a user's file."""
    path = tmp_path / "chat.jinja"
    path.write_text(text, encoding="utf-8")
    return load_renderer(TemplateConfig(template=str(path)), tokenizer_of("chatml"))


@pytest.mark.slow
@pytest.mark.parametrize("said", BOMBS)
def test_bombs_are_stopped(tmp_path: Path, said: str) -> None:
    """Killed by limits of CPU time and memory in a child process, or refused by the operator, within seconds; later renders are the matter
    of `test_limits`."""
    begin = time.process_time()
    with pytest.raises(InputError, match=rf"chat\.jinja {said}"):
        load(tmp_path, BOMBS[said])
    assert time.process_time() - begin < 10


@pytest.mark.parametrize("name", ESCAPES)
def test_escapes_are_refused(tmp_path: Path, name: str) -> None:
    """The sandbox of transformers raises; the message is the template's refusal."""
    with pytest.raises(InputError, match="refuses the conversation"):
        load(tmp_path, ESCAPES[name])


@pytest.mark.parametrize("reason", WRONG)
def test_templates_without_derivable_spans_are_refused(tmp_path: Path, reason: str) -> None:
    """The message names the file and the reason."""
    with pytest.raises(InputError, match=reason) as caught:
        load(tmp_path, WRONG[reason])
    assert "chat.jinja" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_render_does_not_depend_on_the_day(tmp_path: Path) -> None:
    """`strftime_now` tells the fixed date."""
    renderer = load(tmp_path, "Today is {{ strftime_now('%d %b %Y') }}.\n" + CHAT)
    assert renderer.render(conversation(("user", "Hi")).messages).startswith("Today is 26 Jul 2024.\n")

"""One render of a chat template: transformers' sandbox under limits, fixed variables, a fixed date."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from tunewright.data.records import Message
from tunewright.data.template_guard import RenderLimit, watched
from tunewright.data.template_trace import Tools
from tunewright.data.tools import template_messages, template_tools
from tunewright.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RENDER_DATE = datetime.date(2024, 7, 26)
"""What `strftime_now` tells a template if the run names no date: a render must not depend on the day. It is Llama 3.1's own date
without a clock."""


@dataclass(frozen=True, slots=True)
class Jinja:
    """A template's text with the values it reads besides the conversation.

    `variables`: special tokens of the tokenizer, `default_bos` (the BOS token if the tokenizer adds one by itself, else
    empty) and `default_system` if it was given. `thinking`: the switch of reasoning models, None to leave it out.
    """

    name: str
    text: str
    variables: Mapping[str, str]
    thinking: bool | None = None
    arguments_as_text: bool = False
    date: datetime.date = RENDER_DATE

    def render(self, messages: Sequence[Message], tools: Tools, *, generate: bool) -> str:
        """The conversation as text, with the opening of an answer at its end if `generate`.

        Raises `InputError` with the template's own words if it refuses the conversation.
        """
        from jinja2.exceptions import TemplateError

        from tunewright.data.template_sandbox import LimitError, compiled

        variables: dict[str, Any] = dict(self.variables, strftime_now=self.date.strftime)
        if self.thinking is not None:
            variables |= {"enable_thinking": self.thinking, "thinking": self.thinking}
        turns = template_messages(messages, arguments_as_text=self.arguments_as_text, nine_characters=wants_nine_characters(self.text),
                                  thought_keys=thought_keys(self.text))
        try:
            write = partial(compiled(self.text).render, messages=turns, tools=template_tools(tools) or None, documents=None,
                            add_generation_prompt=generate, **variables)
            rendered: str = watched(write)
        except RenderLimit as limit:
            raise self._stopped(f"it needs {limit.what} for this conversation") from limit
        except LimitError as limit:
            raise self._stopped(str(limit)) from limit
        except (TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError, NameError) as error:
            # The right-hand types are what expressions inside a template raise on values they did not expect; jinja writes 1e999 as `inf`.
            raise InputError(f"template {self.name} refuses the conversation: {_one_line(error)}") from error
        return rendered

    def _stopped(self, why: str) -> InputError:
        return InputError(f"template {self.name} was stopped: {why}", mend="use another template, or take the row out")

    def switched(self, thinking: bool | None) -> Jinja:
        """The same template with the thinking switch set."""
        return self if thinking == self.thinking else replace(self, thinking=thinking)


@cache
def thought_keys(text: str) -> tuple[str, ...]:
    """The keys under which a template reads the thought of an answer; vendors disagree on the name."""
    read = r"""(?:\.|\[["']|get\(["']|["'])%s\b"""
    return tuple(key for key in ("reasoning_content", "thinking", "reasoning")
                 if re.search(read % key, text) or (key == "reasoning_content" and key in text))


def wants_nine_characters(text: str) -> bool:
    """Whether identifiers of calls must be nine letters and digits: in Mistral's formats, whose own templates refuse others."""
    return "[TOOL_CALLS]" in text


def template_variables(tokenizer: PreTrainedTokenizerBase, default_system: str | None) -> dict[str, str]:
    """The values a template may read; `bos_token` and `eos_token` are empty where the tokenizer has none."""
    named = {key: value for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    variables = {"bos_token": "", "eos_token": "", **named, "default_bos": adds_bos(tokenizer)}
    if default_system is not None:
        variables["default_system"] = default_system
    return variables


def fixed_date(text: str, date: datetime.date) -> str:
    """Jinja that fixes `strftime_now` to a date, for the formats in which `text` asks for it; empty if it asks for none."""
    asked = dict.fromkeys(re.findall(r"""strftime_now\(\s*["']([^"']+)["']\s*\)""", text))
    said = json.dumps({one: date.strftime(one) for one in asked})
    return f"{{%- macro strftime_now(format) %}}{{{{ {said}[format] }}}}{{% endmacro %}}\n" if asked else ""


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's BOS token if it puts one before a text by itself, else an empty string."""
    begin = tokenizer("a", add_special_tokens=True)["input_ids"][:1]
    return str(tokenizer.bos_token) if tokenizer.bos_token_id is not None and begin == [tokenizer.bos_token_id] else ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]

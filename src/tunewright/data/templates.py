"""Renders conversations: one renderer for training, prediction and chat.

Jinja first: the tokenizer's own chat template, else a bundled one by name, else the user's file. The trained spans come from
the render itself: an answer begins where the prompt for it ends and ends with the literal that closes it.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from tunewright.config.data import TemplateConfig
from tunewright.data.answer_spans import answer_span
from tunewright.data.control_tokens import control_tokens, literal_pattern, special_tokens
from tunewright.data.masks import ANSWERS_ONLY, MaskPolicy, Rendered, Span, chosen_spans
from tunewright.data.quirks import STRICT, Quirks
from tunewright.data.records import Conversation, Message
from tunewright.data.template_engine import RENDER_DATE, Jinja, fixed_date, template_variables, wants_nine_characters
from tunewright.data.template_guard import probe_under_limits
from tunewright.data.template_history import are_tags, restored, with_thoughts
from tunewright.data.template_profile import Profile, probe, render_everything
from tunewright.data.template_shapes import Shapes
from tunewright.data.template_sources import find_source
from tunewright.data.template_table import THINK
from tunewright.data.template_trace import Run, Tools, Traced, trace
from tunewright.data.template_turns import prepared
from tunewright.data.tools import with_identifiers
from tunewright.errors import InputError, require

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


log = logging.getLogger(__name__)

TEXTS_ALONE = "empty"
"""The bundled template that writes the texts one after the other, and the end token after an answer."""


@dataclass(frozen=True)
class Renderer:
    """A chat template with everything it needs. A value: pure, picklable, the same text for the same turns on any day.

    `thinking`: on, off, or None: then a conversation is rendered with thinking if its last answer has reasoning, and
    without if it has none, so that each row looks as the model will see it in that mode. `special`: tokens that stay
    text in every message; `control`: these and the template's other tokens, which stay text in what users and tools say.
    `thought`: the words around thoughts; `also_stop`: further literals that end generation; `dated`: the run names the date;
    `keeps_thoughts`: for training, earlier answers keep theirs.
    """

    jinja: Jinja
    profile: Profile
    default_system: str | None
    thinking: bool | None
    special: tuple[str, ...]
    control: tuple[str, ...]
    thought: tuple[str, str] = THINK
    also_stop: tuple[str, ...] = ()
    dated: bool = False
    keeps_thoughts: bool = False

    @property
    def name(self) -> str:
        """The template's name."""
        return self.jinja.name

    @property
    def source(self) -> str:
        """The template's jinja text, for use outside: with those values written into it that only we would give it."""
        ours = {name: self.jinja.variables.get(name) for name in ("default_bos", "default_system") if name in self.jinja.text}
        given = (f"{{%- set {name} = {json.dumps(value)} %}}\n" for name, value in ours.items() if value is not None)
        return (fixed_date(self.jinja.text, self.jinja.date) if self.dated else "") + "".join(given) + self.jinja.text

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The literals that end an answer."""
        return tuple(dict.fromkeys(text.strip() for text in (*self.profile.terminators, *self.also_stop)))

    def stop_token_ids(self, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
        """Ids that end generation: the tokenizer's EOS and every literal above that is one token."""
        known = tokenizer.added_tokens_encoder
        ids = [tokenizer.eos_token_id, *(known.get(text) for text in self.stop_strings)]
        return tuple(dict.fromkeys(one for one in ids if one is not None))

    def render(self, messages: Sequence[Message], tools: Tools = (), *, generate: bool = False) -> str:
        """The conversation as text; with `generate`, the prompt for the next answer."""
        turns = self._turns(messages, tools)
        text = self._jinja(turns, generate).render(turns, tools, generate=generate)
        return text if generate else self._closed(text, turns)

    def trace_prompt(self, messages: Sequence[Message], tools: Tools = ()) -> Rendered:
        """The prompt for the next answer and the places of the messages in it; nothing of it is trained."""
        turns = self._turns(messages, tools)
        traced = self._traced(turns, tools, generate=True)
        return Rendered(traced.text, (), traced.runs, _answers(turns))

    def render_spans(self, conversation: Conversation, masks: MaskPolicy = ANSWERS_ONLY) -> Rendered:
        """The conversation as text with its trained spans.

        Raises `InputError` naming the row, the template and the reason if the spans cannot be derived.
        """
        try:
            return self._spans(conversation, masks)
        except InputError as error:
            mend = error.mend or "correct the row, or choose another template"
            if error.mend is None and self.thinking and self.profile.reads_reasoning and not conversation.messages[-1].reasoning:
                mend = "set enable_thinking: null, so that answers without a thought stand as with thinking off"
            raise InputError(error.message, where=error.where or str(conversation.origin), mend=mend) from error

    def render_spans_fast(self, conversation: Conversation, masks: MaskPolicy = ANSWERS_ONLY) -> Rendered:
        """The same as `render_spans`, with one render or none for most conversations; see `template_shapes`."""
        found = self._shapes.rendered(conversation, masks)
        return self.render_spans(conversation, masks) if found is None else self._restored(found)

    def _trained(self, turns: list[Message]) -> str:
        """Turns as the template takes them, rendered for training."""
        return self._closed(self._jinja(turns, generate=False).render(turns, (), generate=False), turns)

    def _spans(self, conversation: Conversation, masks: MaskPolicy) -> Rendered:
        turns = self._training_turns(conversation.messages, conversation.tools)
        traced = self._traced(turns, conversation.tools, generate=False)
        traced = Traced(self._closed(traced.text, turns), traced.runs)
        answers = []
        for number, turn in enumerate(turns):
            if turn.role == "assistant":
                span = answer_span(self._prompts(turns, conversation.tools, number), traced, turns, number, self.profile,
                                   self.thought)
                answers.append((span, turn.trained))
        self._check(traced.runs, turns, answers)
        return self._restored(Rendered(traced.text, chosen_spans(answers, len(traced.text), masks), traced.runs, _answers(turns)))

    def _restored(self, rendered: Rendered) -> Rendered:
        return restored(rendered, self.thought) if self.keeps_thoughts else rendered

    def _prompts(self, turns: list[Message], tools: Tools, number: int) -> list[partial[Traced]]:
        """Prompts that may precede answer `number`. An earlier answer may stand there as if thinking had been on, or off."""
        jinja = self._jinja(turns, generate=False)
        switches = [jinja.thinking] if number == len(turns) - 1 else [jinja.thinking, None, False]
        return [partial(self._prompt, jinja.switched(switch), turns[:number], tools) for switch in dict.fromkeys(switches)]

    def _prompt(self, jinja: Jinja, turns: list[Message], tools: Tools, *, with_places: bool) -> Traced:
        if with_places:
            return self._found(trace(partial(jinja.render, generate=True), turns, tools, self._control))
        return Traced(jinja.render(turns, tools, generate=True), ())

    def _training_turns(self, messages: Sequence[Message], tools: Tools) -> list[Message]:
        keeps = self.keeps_thoughts and self.thinking is not False
        return self._turns(with_thoughts(messages, self.thought) if keeps else messages, tools)

    def _turns(self, messages: Sequence[Message], tools: Tools) -> list[Message]:
        profile = self.profile
        require(len(messages) > 0, "the conversation has no messages")
        require(not tools or profile.tools_problem is None, profile.tools_problem or "",
                mend="use a template with tools, such as qwen2.5, or rows without")
        calls = any(message.tool_calls or message.role == "tool" for message in messages)
        require(not calls or profile.calls_problem is None, profile.calls_problem or "",
                mend="use a template with tool calls, such as qwen2.5, or rows without")
        if calls:
            messages = with_identifiers(messages, nine_characters=wants_nine_characters(self.jinja.text))
        return prepared(messages, profile, self.default_system, self.thinking, self.thought)

    def _jinja(self, turns: list[Message], generate: bool) -> Jinja:
        if self.thinking is not None or generate:
            return self.jinja.switched(self.thinking)
        return self.jinja.switched(bool(turns[-1].reasoning))

    def _traced(self, turns: list[Message], tools: Tools, *, generate: bool) -> Traced:
        return self._found(trace(partial(self._jinja(turns, generate).render, generate=generate), turns, tools, self._control))

    def _found(self, traced: Traced | None) -> Traced:
        if traced is None:
            raise InputError(f"template {self.name}: the messages cannot be found in the render, because the template "
                             "changes their text", mend="use a template that writes each text as it is")
        return traced

    def _closed(self, text: str, turns: list[Message]) -> str:
        """The render with the terminator that the template itself does not write after a last answer."""
        if not self.profile.appended or turns[-1].role != "assistant":
            return text
        return text.removesuffix(self.profile.final_tail) + self.profile.appended

    def _check(self, runs: tuple[Run, ...], turns: list[Message], answers: list[tuple[Span, bool]]) -> None:
        """Nothing that a user, a system prompt or a tool said lies in an answer's span."""
        spans = [span for span, _ in answers]
        for run in runs:
            said = run.message < 0 or turns[run.message].role != "assistant"
            if said and any(span.start < run.end and run.start < span.end for span in spans):
                raise InputError(f"template {self.name} writes other text inside an answer")

    @cached_property
    def _shapes(self) -> Shapes:
        return Shapes(self.jinja.text, self.render_spans, lambda messages: self._training_turns(messages, ()), self._trained)

    @cached_property
    def _control(self) -> re.Pattern[str]:
        return literal_pattern((*self.control, *self.stop_strings))


def load_renderer(template: TemplateConfig, tokenizer: PreTrainedTokenizerBase, quirks: Quirks = STRICT) -> Renderer:
    """The renderer that `template` asks for, with those of LLaMA-Factory's `quirks` that are about renders.

    Raises `InputError` if there is no such template, if it is too large, takes too long, or renders questions and answers
    in a way from which the trained part cannot be derived.
    """
    source = find_source(source_name(template), tokenizer, template.tool_format)
    if source.note is not None:
        log.warning(source.note)
    jinja = Jinja(source.name, source.text, template_variables(tokenizer, template.default_system), date=_date(template))
    if not source.bundled:
        # Before anything else: jinja computes constant expressions while it compiles.
        probe_under_limits(partial(render_everything, jinja), source.name)
    _compile(jinja)
    special = special_tokens(tokenizer)
    profile = probe(jinja, source.stops, jinja.variables["eos_token"], literal_pattern(special), is_open=source.is_open)
    if template.tool_format is not None:
        _check_tools(profile, template.tool_format)
    require(bool(profile.terminators[0]), f"template {source.name} ends an answer with the EOS token, which the tokenizer lacks",
            mend="name eos_token in tokenizer_config.json")
    _tell_unstoppable(source.name, profile.terminators, tokenizer)
    return Renderer(
        jinja=replace(jinja, arguments_as_text=profile.arguments_as_text),
        profile=profile,
        default_system=_default_system(template, profile, bundled=source.bundled),
        thinking=False if source.never_thinks else template.enable_thinking,
        special=special,
        control=control_tokens(tokenizer, source.text),
        thought=source.thought,
        also_stop=source.also_stop,
        dated=template.template_date is not None,
        keeps_thoughts="think-block-in-history" in quirks and are_tags(source.thought),
    )


def source_name(template: TemplateConfig) -> str:
    """What names the template: `template`, unless only the texts are wanted."""
    return TEXTS_ALONE if template.template_type == "completion" else template.template


def _date(template: TemplateConfig) -> datetime.date:
    """The date that templates read. Raises `InputError` if what the run names is none."""
    if template.template_date is None:
        return RENDER_DATE
    try:
        return datetime.date.fromisoformat(template.template_date)
    except ValueError as error:
        raise InputError(f"template_date: {template.template_date!r} is not a date", mend="write it as 2024-07-26") from error


def _tell_unstoppable(name: str, terminators: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
    """Say so where no terminator is one token: generation stops at tokens, so that answers would run on into the next question."""
    sizes = {text.strip(): len(tokenizer.encode(text.strip(), add_special_tokens=False)) for text in terminators if text.strip()}
    if sizes and min(sizes.values()) > 1:
        text, size = next(iter(sizes.items()))
        log.warning("template %s: answers end with %r, which is %d tokens of this tokenizer and not one: generation will not stop there; "
                    "use the template of this model, or name it in add_special_tokens", name, text, size)


def _check_tools(profile: Profile, tool_format: str) -> None:
    """Refuse a tool format that the template below it does not carry: it drops a text, or has no turn for results."""
    problem = profile.tools_problem or profile.calls_problem
    require(problem is None, f"tool_format {tool_format} does not go with this template: {problem}",
            mend="remove tool_format, or use a bundled template")


def _default_system(template: TemplateConfig, profile: Profile, *, bundled: bool) -> str | None:
    """The system prompt to put before rows without one. Ours know `default_system`; elsewhere it is a message of its own.

    An empty one is a message only where the template would else write its own.
    """
    if template.default_system or (template.default_system == "" and profile.writes_system and not bundled):
        return template.default_system
    return None


def _answers(turns: list[Message]) -> frozenset[int]:
    return frozenset(number for number, turn in enumerate(turns) if turn.role == "assistant")


def _compile(jinja: Jinja) -> None:
    from jinja2.exceptions import TemplateSyntaxError

    from tunewright.data.template_sandbox import compiled

    try:
        compiled(jinja.text)
    except TemplateSyntaxError as error:
        raise InputError(f"{jinja.name} is not valid jinja: {error.message}", where=f"{jinja.name}:{error.lineno}",
                         mend="correct the template") from error

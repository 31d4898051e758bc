"""Trained spans from one render, for conversations whose shape has been seen before.

The exact way (`Renderer.render_spans`) renders a conversation again with its texts replaced, and once more up to each answer. Where the
texts and the answers stand, though, depends only on the roles of the messages and on whether white space surrounds their texts: the
shape. The exact way is asked about two made-up conversations of each shape; if both agree, what the template writes between the texts
is known. A conversation of that shape is then put together from this and its texts. If the template is one that can do nothing with texts
but place them (`template_texts`), that is its render. For any other it is rendered once, and if both are the same to the last character,
its places are known. If not, or if a text holds a word that the template looks for, the exact way is taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from tunewright.data.masks import MaskPolicy, Rendered, Span, chosen_spans
from tunewright.data.records import Conversation, Message, Role
from tunewright.data.template_texts import only_places_texts
from tunewright.data.template_trace import PRIVATE, Run
from tunewright.errors import InputError

Edges = tuple[Role, bool, bool]
Outline = tuple[Edges, ...]
"""Of each message: its role, and whether white space stands before and behind its text."""

_SIGNALS = ("<think>", "</think>", "<tool_", "</tool_", "/no_think", "/think")
"""Words that templates are known to look for, whether this one seems to or not."""
_MOST_SHAPES = 10_000
_WORDS = ("Firstqx{}", "Another one:\nqx{} of two")
_WHITE = (("\n \n", " \n\n"), ("\t ", "  \n"))
_LOOKED_FOR = re.compile(r"""\.\w+\(\s*(["'])(?P<given>.+?)\1|(["'])(?P<within>[^"']+)\3\s+(?:not\s+)?in\b""")


class Place(NamedTuple):
    """One text: its turn, what the template writes before it, and whether white space before and behind it is kept."""

    turn: int
    literal: str
    keeps_before: bool
    keeps_behind: bool


class Answer(NamedTuple):
    """A trained part: it begins `begin` characters into the literal before text `text`, and ends `end` into the one behind it."""

    text: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What a template writes around the texts of conversations with one outline; `tail` stands behind the last."""

    places: tuple[Place, ...]
    tail: str
    answers: tuple[Answer, ...]
    roles: frozenset[int]

    def rendered(self, turns: Sequence[Message], masks: MaskPolicy) -> Rendered:
        """These turns, whose texts are not blank, as they are rendered in this shape."""
        pieces: list[str] = []
        runs: list[Run] = []
        literals: list[int] = []
        at = 0
        for turn, literal, keeps_before, keeps_behind in self.places:
            said = core = turns[turn].content
            literals.append(at)
            start = at = at + len(literal)
            if core[0].isspace() or core[-1].isspace():
                core = said.strip()
                start += said.index(core) if keeps_before else 0
                said = _kept(said, keeps_before, keeps_behind)
            pieces += (literal, said)
            at += len(said)
            runs.append(Run(start, start + len(core), turn, "content"))
        pieces.append(self.tail)
        text = "".join(pieces)
        literals.append(at)
        answers = [(Span(literals[one.text] + one.begin, literals[one.text + 1] + one.end), turns[self.places[one.text].turn].trained)
                   for one in self.answers]
        return Rendered(text, chosen_spans(answers, len(text), masks), tuple(runs), self.roles)


@dataclass(frozen=True)
class Shapes:
    """The shapes of one template. `exact` is the exact way, `turns` what a template is given of a conversation, `render` their render for
    training."""

    source: str
    exact: Callable[[Conversation], Rendered]
    turns: Callable[[Sequence[Message]], list[Message]]
    render: Callable[[list[Message]], str]
    _known: dict[Outline, Shape | None] = field(default_factory=dict, repr=False)

    def rendered(self, conversation: Conversation, masks: MaskPolicy) -> Rendered | None:
        """The conversation with its trained spans, or None: then the exact way must be taken."""
        messages = conversation.messages
        if conversation.tools:
            return None
        edges = [_edges(message) for message in messages]
        outline = tuple([one for one in edges if one is not None])
        if len(outline) < len(edges):
            return None
        shape = self._known[outline] if outline in self._known else self._learn(outline, conversation)
        if shape is None:
            return None
        try:
            turns = self.turns(messages)
            if any(map(self._is_special, turns)):
                return None
            found = shape.rendered(turns, masks)
            if not self._is_certain and found.text != self.render(turns):
                return None
        except InputError:
            return None
        return None if not found.text.isascii() and PRIVATE.search(found.text) else found

    def _is_special(self, turn: Message) -> bool:
        """Whether a turn is more than a text that the template does not look into, or less: a thought may have been all of it."""
        text = turn.content
        if turn.reasoning is not None or not text or text.isspace():
            return True
        for word in self._looked_for:  # noqa: SIM110 - this is asked of every text, and a generator takes twice as long
            if word in text:
                return True
        return False

    @cached_property
    def _is_certain(self) -> bool:
        return only_places_texts(self.source)

    @cached_property
    def _looked_for(self) -> tuple[str, ...]:
        return () if self._is_certain else _looked_for(self.source)

    def _learn(self, outline: Outline, conversation: Conversation) -> Shape | None:
        if len(self._known) >= _MOST_SHAPES:
            return None
        found = [self._probed(outline, conversation, number) for number in range(2)]
        self._known[outline] = found[0] if found[0] == found[1] else None
        return self._known[outline]

    def _probed(self, outline: Outline, conversation: Conversation, number: int) -> Shape | None:
        """The shape as one made-up conversation shows it."""
        before, behind = _WHITE[number]
        messages = tuple(Message(role, before * has_before + _WORDS[number].format(position) + behind * has_behind)
                         for position, (role, has_before, has_behind) in enumerate(outline))
        try:
            rendered = self.exact(replace(conversation, messages=messages))
            turns = self.turns(messages)
            text = self.render(turns)
        except InputError:
            return None
        runs = rendered.runs
        is_whole = text == rendered.text and [run.message for run in runs] == list(range(len(turns)))
        if not is_whole or any(run.part != "content" for run in runs):
            return None
        return _shape(rendered, turns, before, behind)



def _shape(rendered: Rendered, turns: Sequence[Message], before: str, behind: str) -> Shape | None:
    """What stands around the runs of a render, with the white space of the messages taken off; None if an answer is not so bounded."""
    text, runs = rendered.text, rendered.runs
    borders = [0, *(place for run in runs for place in (run.start, run.end)), len(text)]
    literals = [text[start:end] for start, end in zip(borders[::2], borders[1::2], strict=True)]
    starts = list(borders[::2])
    places: list[Place] = []
    for number, turn in enumerate(turns):
        has_before, has_behind = turn.content[:1].isspace(), turn.content[-1:].isspace()
        keeps_before = has_before and literals[number].endswith(before)
        keeps_behind = has_behind and literals[number + 1].startswith(behind)
        if keeps_before:
            literals[number] = literals[number].removesuffix(before)
        if keeps_behind:
            literals[number + 1] = literals[number + 1].removeprefix(behind)
            starts[number + 1] += len(behind)
        places.append(Place(number, literals[number], keeps_before, keeps_behind))
    answers = _answers(rendered, starts, literals)
    return None if answers is None else Shape(tuple(places), literals[-1], answers, rendered.answers)


def _answers(rendered: Rendered, starts: Sequence[int], literals: Sequence[str]) -> tuple[Answer, ...] | None:
    """The spans, each bounded by the literals around one text; None if one is not."""
    roles = sorted(rendered.answers)
    if len(roles) != len(rendered.spans):
        return None
    answers = [Answer(number, span.start - starts[number], span.end - starts[number + 1])
               for number, span in zip(roles, rendered.spans, strict=True)]
    for one in answers:
        if not (0 <= one.begin <= len(literals[one.text]) and 0 <= one.end <= len(literals[one.text + 1])):
            return None
    return tuple(answers)


def _edges(message: Message) -> Edges | None:
    """Role and edges of a message that is nothing but a text, else None."""
    text = message.content
    if not text or message.tool_calls or message.reasoning is not None or message.role == "tool" or message.name or text.isspace():
        return None
    return message.role, text[0].isspace(), text[-1].isspace()


def _kept(content: str, keeps_before: bool, keeps_behind: bool) -> str:
    """What a template writes of a text that has white space around it."""
    if keeps_before and keeps_behind:
        return content
    if keeps_before:
        return content.rstrip()
    return content.lstrip() if keeps_behind else content.strip()


def _looked_for(source: str) -> tuple[str, ...]:
    """The words that a template looks for in texts: what its methods are given and what stands before `in`, but white space."""
    words = {found["given"] or found["within"] for found in _LOOKED_FOR.finditer(source)}
    decoded = {word.replace("\\n", "\n").replace("\\t", "\t") for word in words}
    return (*_SIGNALS, *sorted(word for word in decoded if word.strip()))

"""What a chat template does, found by rendering a few short conversations once, when it is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from tunewright.data.records import Message, ToolCall
from tunewright.data.template_engine import Jinja, thought_keys
from tunewright.data.template_trace import Traced, trace
from tunewright.errors import InputError, require

_SYSTEM, _ASK, _ANSWER, _AGAIN, _MORE = (
    Message("system", "Ssystemqx"), Message("user", "Uoneqx"), Message("assistant", "Aoneqx"), Message("user", "Utwoqx"),
    Message("assistant", "Atwoqx"))
_CALL = ToolCall("toolqx", {"cityqx": "valueqx"}, "")
_TOOLS = ({"type": "function", "function": {
    "name": "toolqx", "description": "Describedqx", "parameters": {"type": "object", "properties": {}}}},)
_RESULT = "resultqx"
_NOTHING = re.compile("(?!)")


@dataclass(frozen=True, slots=True)
class Profile:
    """`terminators`: the literals that may close an answer. `open_turns`: an earlier answer may end without one.

    `appended`: what must be written after a last answer because the template writes no terminator (`final_tail` is
    the white space that it replaces). `folds_system`: the template has no place for a system prompt. `writes_system`: it
    writes one of its own if there is none. `reads_reasoning`: it places `reasoning_content` itself. `tools_problem`,
    `calls_problem`: why tools or calls cannot be rendered, None if they can.
    """

    terminators: tuple[str, ...]
    open_turns: bool
    appended: str
    final_tail: str
    folds_system: bool
    writes_system: bool
    reads_reasoning: bool
    arguments_as_text: bool
    tools_problem: str | None
    calls_problem: str | None


def probe(jinja: Jinja, stops: Sequence[str], eos: str, special: re.Pattern[str], *, is_open: bool = False) -> Profile:
    """The profile of a template. `stops` are its role tokens that end a turn, `special` finds the tokenizer's tokens; `is_open` tells that
    earlier answers are not closed, also where a role token follows.

    Raises `InputError` if the template cannot render a question and its answer, or if the render for training does not
    begin with the render for generation.
    """
    single, prompt = _answered(jinja)
    answer_at = single.of(1)[0].start
    require(_begins(single, prompt),
            f"template {jinja.name}: the render of an answered question does not begin with the prompt for that answer",
            mend="use a template whose add_generation_prompt writes what it also writes before an answer")
    ignores = jinja.render([_ASK], (), generate=False) == prompt
    require(not (ignores and single.text[len(prompt) : answer_at].strip()),
            f"template {jinja.name} ignores add_generation_prompt, though it writes a header before an answer",
            mend="use a template that writes the header when add_generation_prompt is set")
    tail = single.text[single.of(1)[-1].end :]
    final = _terminator(tail, special)
    stops = tuple(stops) or (() if final or is_open else _next_role(jinja, special))
    closing = tuple(stops) or (final or eos,)
    between = _between(jinja)
    others = _others(jinja, closing, between, special) if final or stops else ()
    as_text, calls_problem = _calls(jinja)
    return Profile(
        terminators=tuple(dict.fromkeys((*closing, *others))),
        open_turns=not stops and not between.lstrip().startswith(tuple(one.lstrip() for one in (*closing, *others))),
        appended="" if final else (stops[0] if stops else eos),
        final_tail="" if final else tail,
        folds_system=not _shows(jinja, [_SYSTEM, _ASK], _SYSTEM.content),
        writes_system=_writes_system(jinja),
        reads_reasoning=bool(thought_keys(jinja.text)) and _shows_thoughts(jinja),
        arguments_as_text=as_text,
        tools_problem=_tools(jinja),
        calls_problem=calls_problem,
    )


def _answered(jinja: Jinja) -> tuple[Traced, str]:
    """The render of a question with its answer, and the prompt for it.

    Of the switches of thinking, and of an answer with a thought or without, the first where the one begins with the other: the prompts
    of some models open a thought, so that only answers with one can follow.
    """
    found = []
    for answer in (_ANSWER, replace(_ANSWER, reasoning="Thoughtqx")):
        for one in (jinja, jinja.switched(True), jinja.switched(False)):
            try:
                found.append((_traced(one, [_ASK, answer]), one.render([_ASK], (), generate=True)))
            except InputError:
                if not found:
                    raise
                continue
            if _begins(*found[-1]):
                return found[-1]
    return found[0]


def _begins(answered: Traced, prompt: str) -> bool:
    return answered.text.startswith(prompt) and len(prompt) <= answered.of(1)[0].start


def render_everything(jinja: Jinja) -> None:
    """Render one conversation of each kind, whatever comes of it: the probe that runs under limits."""
    asked = replace(_ANSWER, tool_calls=(_CALL,))
    for messages in ([_ASK], [_SYSTEM, _ASK, _ANSWER, _AGAIN, _MORE], [_ASK, asked, Message("tool", _RESULT), _MORE]):
        for tools in ((), _TOOLS):
            try:
                jinja.render(messages, tools, generate=messages[-1].role == "user")
            except InputError:
                continue


def _traced(jinja: Jinja, messages: Sequence[Message]) -> Traced:
    traced = trace(partial(jinja.render, generate=False), messages, (), _NOTHING)
    places = None if traced is None else {run.message for run in traced.runs}
    if traced is None or places != set(range(len(messages))):
        raise InputError(f"template {jinja.name}: the texts of a conversation cannot be found in its render",
                         mend="use a template that writes each text once, unchanged but for white space at its ends")
    return traced


def _terminator(tail: str, special: re.Pattern[str]) -> str:
    """What closes an answer: up to the first special token after it; without one, the words up to the end of the line."""
    found = special.search(tail)
    if found:
        return tail[: found.end()]
    words = tail.strip().split("\n")[0]
    return tail[: tail.index(words) + len(words)] if words else ""


def _between(jinja: Jinja) -> str:
    """What stands between an answer and the next question."""
    traced = _traced(jinja, [_ASK, _ANSWER, _AGAIN, _MORE])
    return traced.text[traced.of(1)[-1].end : traced.of(2)[0].start]


def _others(jinja: Jinja, known: Sequence[str], between: str, special: re.Pattern[str]) -> tuple[str, ...]:
    """What closes an earlier answer and a call, where these are other tokens than `known`, which close the last answer (GPT-OSS)."""
    prompt = jinja.render([_ASK], (), generate=True)
    found = []
    closing = special.match(between)
    if closing and closing.group() not in [one.strip() for one in known] and prompt.partition(_ASK.content)[2].startswith(closing.group()):
        found.append(closing.group())
    called = [_ASK, Message("assistant", "", tool_calls=(_CALL,)), Message("tool", _RESULT), _ANSWER]
    try:
        behind = jinja.render(called, (), generate=False).rpartition("valueqx")[2].partition(_RESULT)[0]
    except InputError:
        return tuple(found)
    closing = special.search(behind)
    if closing and not any(one.strip() in behind for one in (*known, *found)):
        found.append(closing.group())
    return tuple(found)


def _next_role(jinja: Jinja, special: re.Pattern[str]) -> tuple[str, ...]:
    """The role token that directly follows an earlier answer, in templates that close turns by opening the next."""
    found = special.match(_between(jinja))
    return (found.group(),) if found else ()


def _shows(jinja: Jinja, messages: Sequence[Message], text: str, *, generate: bool = True) -> bool:
    try:
        return text in jinja.render(messages, (), generate=generate)
    except InputError:
        return False


def _shows_thoughts(jinja: Jinja) -> bool:
    """Whether the thought of a last answer, or of a call after the last question, is in the render."""
    thought = "Thoughtqx"
    turns = [_ASK, replace(_ANSWER, reasoning=thought)]
    called = [_ASK, replace(_ANSWER, content="", reasoning=thought, tool_calls=(_CALL,)), Message("tool", _RESULT)]
    return any(_shows(one, kind, thought, generate=kind is called) for one in (jinja.switched(True), jinja) for kind in (turns, called))


def _writes_system(jinja: Jinja) -> bool:
    """Whether the text before a question shrinks when an empty system prompt is given, besides the prompt's own frame."""
    plain = jinja.render([_ASK], (), generate=True)
    try:
        emptied = jinja.render([replace(_SYSTEM, content=""), _ASK], (), generate=True)
    except InputError:
        return False
    return len(emptied) < len(plain)


def _tools(jinja: Jinja) -> str | None:
    try:
        text = jinja.render([_ASK], _TOOLS, generate=True)
    except InputError as error:
        return error.message
    return None if "toolqx" in text and "Describedqx" in text else f"template {jinja.name} has no place for tools"


def _calls(jinja: Jinja) -> tuple[bool, str | None]:
    """Whether calls want their arguments as JSON text, and why calls cannot be rendered, if so."""
    turns = [_ASK, Message("assistant", "", tool_calls=(_CALL,)), Message("tool", _RESULT), _ANSWER]
    problem = f"template {jinja.name} has no place for tool calls"
    for as_text in (False, True):
        try:
            text = replace(jinja, arguments_as_text=as_text).render(turns, _TOOLS, generate=False)
        except InputError as error:
            problem = error.message
            continue
        # Quoted by Python, or twice by JSON: the arguments were not of the kind that the template takes.
        mangled = "'cityqx'" in text or '\\"cityqx' in text
        if not mangled and all(word in text for word in ("toolqx", _RESULT, "cityqx", "valueqx")):
            return as_text, None
    return False, problem

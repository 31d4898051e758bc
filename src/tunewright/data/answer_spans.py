"""From a traced render to the span of one answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tunewright.data.masks import Span
from tunewright.data.records import Message
from tunewright.data.template_profile import Profile
from tunewright.data.template_trace import Traced
from tunewright.errors import InputError


def answer_span(prompts: Sequence[partial[Traced]], full: Traced, turns: Sequence[Message], number: int, profile: Profile,
                thought: tuple[str, str]) -> Span:
    """The characters of answer `number` in the full render, its terminator included. `thought`: the template's words around thoughts.

    Raises `InputError` if its text is not in the render, or if its beginning or its end cannot be derived.
    """
    turn = turns[number]
    runs = full.of(number)
    if turn.content.strip() and not any(run.part == "content" for run in runs):
        raise InputError(f"the template leaves out the answer in message {number + 1}")
    if sum(run.part == "content" for run in runs) > 1 and not turn.tool_calls and "<" not in turn.content:
        raise InputError(f"the template writes the answer in message {number + 1} more than once")
    is_history = any(later.role == "user" for later in turns[number + 1 :])
    start = _start(prompts, full, number, thought if is_history else None, is_last=number == len(turns) - 1)
    return Span(start, _end(full, max([start, *(run.end for run in runs)]), turn, number, profile))


def _start(prompts: Sequence[partial[Traced]], full: Traced, number: int, thought: tuple[str, str] | None, *, is_last: bool) -> int:
    """Where the prompt for the answer ends. `thought`: words that its prompt may end in and that are taken out here.

    Before an earlier answer the text may be another than when it was the last one (thoughts are taken out of history, tools stand
    before the last question). Then it begins where its header ends: after what the prompt and the full render share behind the turn
    before.
    """
    for prompt in prompts:
        text = prompt(with_places=False).text
        if full.text.startswith(text):
            return len(text)
    if not is_last:
        for prompt in prompts:
            start = _after_shared_header(prompt(with_places=True), full, number, thought)
            if start is not None:
                return start
    raise InputError(f"the render up to message {number + 1} does not begin with the prompt for it, so that training would "
                     "not match inference")


def _after_shared_header(prompt: Traced, full: Traced, number: int, thought: tuple[str, str] | None) -> int | None:
    before = [run.end for run in full.runs if 0 <= run.message < number]
    asked = [run.end for run in prompt.runs if run.message >= 0]
    own = full.of(number)
    if not before or not asked:
        return None
    written = full.text[before[-1] : own[0].start if own else len(full.text)]
    prompted = prompt.text[asked[-1] :]
    shared = _shared(written, prompted)
    # What is left of the header may only be white space of the answer itself, which belongs to no run.
    if shared > 0 and (shared == len(prompted) or (own and not written[shared:].strip())):
        return before[-1] + shared
    header = "" if thought is None else _without_thought(prompted, thought)
    return before[-1] + len(header) if header and written.startswith(header) else None


def _without_thought(prompted: str, thought: tuple[str, str]) -> str:
    """The header of an answer before the thought that its prompt opens, or opens and closes; "" if it ends in none."""
    begin, end = (word.strip() for word in thought)
    header, opened, rest = prompted.rpartition(begin)
    return header if opened and rest.strip() in ("", end) else ""


def _end(full: Traced, after: int, turn: Message, number: int, profile: Profile) -> int:
    """Where the first terminator after the answer's text ends; nothing but white space or a tool call may stand between."""
    limit = min((run.start for run in full.runs if run.message > number and run.start >= after), default=len(full.text))
    found = [(at, at + len(text)) for literal in profile.terminators
             if (text := literal.strip()) and (at := full.text.find(text, after, limit)) >= 0]
    if found:
        at, end = min(found)
        if turn.tool_calls or not full.text[after:at].strip():
            return end
    if profile.open_turns and number < max(run.message for run in full.runs):
        trailing = turn.content[len(turn.content.rstrip()) :]
        return after + _shared(trailing, full.text[after:limit])
    raise InputError(f"the answer in message {number + 1} is not closed by {' or '.join(map(repr, profile.terminators))}")


def _shared(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    for number, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return number
    return min(len(one), len(other))

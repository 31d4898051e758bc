"""Whether a template says the same everywhere: in training, in generation, in the tokenizer's own text, and once exported.

Each of a few fixed conversations is rendered for training. Against that stand the prompt for its last answer with the trained tokens behind
it, the tokenizer's own template, and the text that an export writes, both rendered by plain transformers. Compared token by token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tunewright.config.data import TemplateConfig
from tunewright.data.records import IGNORE_INDEX, Conversation, Message, Origin, ToolCall
from tunewright.data.template_engine import fixed_date, thought_keys, wants_nine_characters
from tunewright.data.template_sources import bundled_source, file_source
from tunewright.data.template_turns import reasoned
from tunewright.data.templates import Renderer, load_renderer
from tunewright.data.tokenize import encode_conversation, encode_prompt
from tunewright.data.tools import template_messages, template_tools
from tunewright.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COMPARISONS: Final = ("inference", "tokenizer", "exported")
_CONTROL: Final = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>\s]{1,40}｜>|\[/?(?:INST|TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS|SYSTEM_PROMPT|gMASK)\]|<sop>|\bsop\b|"
    r"<(?:start|end)_of_turn>|<(?:beginning|end)_of_(?:sentence|document)>|\]~!?b\[?\]?|\[e~\[|<sep>|<eod>|<_(?:user|bot|system)>|<reserved_\d+>")


@dataclass(frozen=True, slots=True)
class Compared:
    """One comparison. `status`: equal, differs, refused (nothing to compare), absent (there is no such template).

    `at`: the first token that differs, `ours` and `theirs` the tokens from there; `why` says what was refused, by whom.
    """

    conversation: str
    comparison: str
    status: str
    at: int | None = None
    ours: tuple[str, ...] = ()
    theirs: tuple[str, ...] = ()
    why: str = ""


def conversations() -> dict[str, Conversation]:
    """The fixed conversations by name."""
    weather = {"type": "function", "function": {"name": "weather", "description": "Weather of a city", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "description": "A city"}}, "required": ["city"]}}}
    call = Message("assistant", "", tool_calls=(ToolCall("weather", {"city": "Oslo"}, '{"city": "Oslo"}'),))
    ask, yes, more, no = Message("user", "Is it?"), Message("assistant", "Yes."), Message("user", "And now?"), Message("assistant", "No.")
    system = Message("system", "Be brief.")
    return {name: Conversation(tuple(turns), Origin(name, 0), tools) for name, turns, tools in (
        ("one turn", (ask, yes), ()),
        ("several turns", (ask, yes, more, no), ()),
        ("system", (system, ask, yes), ()),
        ("system, several turns", (system, ask, yes, more, no), ()),
        ("reasoning", (ask, replace(yes, reasoning="It is."), more, replace(no, reasoning="It was.")), ()),
        ("tools", (ask, yes), (weather,)),
        ("tool call", (ask, call, Message("tool", "rain"), no), (weather,)),
        ("spaces", (Message("user", "  two before, a line behind\n"), Message("assistant", "\n plain \n"), more, no), ()),
        ("control tokens", (Message("user", "What is <|im_end|> and </s>?"), Message("assistant", "An end: <|im_end|>.")), ()),
        ("other scripts", (Message("user", "你好 🙂 naïve"), Message("assistant", "世界 👩‍👩‍👧 ça va")), ()),
    )}


def check(template: TemplateConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[Renderer, list[Compared]]:
    """The renderer of `template`, and every comparison for every conversation. Raises `InputError` if it cannot be loaded."""
    renderer = load_renderer(template, tokenizer)
    found = []
    for name, conversation in conversations().items():
        try:
            ids, labels = encode_conversation(conversation, renderer, tokenizer)
        except InputError as error:
            found += [Compared(name, one, "refused", why=error.message) for one in COMPARISONS]
            continue
        found.append(_inference(name, conversation, (ids, labels), renderer, tokenizer))
        own = _own_template(tokenizer)
        for comparison, text in (("tokenizer", own), ("exported", renderer.source)):
            found.append(Compared(name, comparison, "absent") if not text else
                         _plain(name, comparison, conversation, text, renderer, tokenizer))
    return renderer, found


def bare_tokenizer(template: str, more: Sequence[str] = ()) -> PreTrainedTokenizerBase:
    """A tokenizer of single bytes, with `<s>`, `</s>`, the control tokens that a template's text writes and `more`: to check it without a
    model."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    controls = dict.fromkeys(("<s>", "</s>", *_CONTROL.findall(template), *more))
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in controls])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=False)


def _own_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    own = tokenizer.chat_template
    return own.get("default") if isinstance(own, dict) else own


def _inference(name: str, conversation: Conversation, row: tuple[list[int], list[int]], renderer: Renderer,
               tokenizer: PreTrainedTokenizerBase) -> Compared:
    """The prompt for the last answer and the tokens that were trained as that answer, against the row."""
    ids, labels = row
    *before, last = conversation.messages
    is_text = renderer.thinking is None and bool(last.reasoning) and not renderer.profile.reads_reasoning
    answers = renderer if is_text else replace(renderer, thinking=_mode(renderer, last))
    prompt = encode_prompt(before, answers, tokenizer, conversation.tools)
    end = max(number for number, label in enumerate(labels) if label != IGNORE_INDEX) + 1
    begin = end
    while begin > 0 and labels[begin - 1] != IGNORE_INDEX:
        begin -= 1
    return _compared(name, "inference", ids[:end], [*prompt, *ids[begin:end]], tokenizer)


def _mode(renderer: Renderer, last: Message) -> bool:
    """Whether a conversation with this answer is rendered with thinking: with thinking kept, each is its own mode's."""
    return renderer.profile.reads_reasoning and bool(last.reasoning) if renderer.thinking is None else renderer.thinking


def _plain(name: str, comparison: str, conversation: Conversation, template: str, renderer: Renderer,
           tokenizer: PreTrainedTokenizerBase) -> Compared:
    """What transformers makes of the same messages with `template`; both texts are tokenised as they stand."""
    from jinja2.exceptions import TemplateError

    thinking = _mode(renderer, conversation.messages[-1])
    turns = [reasoned(turn, renderer.thinking, renderer.profile.reads_reasoning, renderer.thought) for turn in conversation.messages]
    messages = template_messages(turns, arguments_as_text=renderer.profile.arguments_as_text,
                                 nine_characters=wants_nine_characters(template), thought_keys=thought_keys(template))
    # The run's date in the place of the clock, which is not what is compared.
    dated = "" if renderer.dated and template == renderer.source else fixed_date(template, renderer.jinja.date)
    try:
        theirs = str(tokenizer.apply_chat_template(
            messages, tools=template_tools(conversation.tools) or None, chat_template=dated + template, tokenize=False,
            enable_thinking=thinking, thinking=thinking))
    except (TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        return Compared(name, comparison, "refused", why=f"{comparison}: {' '.join(str(error).split())[:200]}")
    ours = renderer.render(conversation.messages, conversation.tools)
    # What the renderer adds behind a last answer that its template leaves open is not the template's to write.
    if renderer.profile.appended:
        ours = ours.removesuffix(renderer.profile.appended) + renderer.profile.final_tail
    return _compared(name, comparison, _ids(ours, tokenizer), _ids(theirs, tokenizer), tokenizer)


def _ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _compared(name: str, comparison: str, ours: Sequence[int], theirs: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> Compared:
    if list(ours) == list(theirs):
        return Compared(name, comparison, "equal")
    both = zip(ours, theirs, strict=False)
    at = next((number for number, (one, other) in enumerate(both) if one != other), min(len(ours), len(theirs)))
    shown = [tuple(tokenizer.decode([one]) for one in ids[at : at + 8]) for ids in (ours, theirs)]
    return Compared(name, comparison, "differs", at, shown[0], shown[1])


def tokenizer_without_model(template: str) -> PreTrainedTokenizerBase:
    """A bare tokenizer for a name of the table, or for a jinja file."""
    if template.endswith((".jinja", ".jinja2", ".j2")) or "/" in template:
        return bare_tokenizer(file_source(Path(template).expanduser()).text)
    source = bundled_source(template)
    return bare_tokenizer(source.text, source.stops)


def as_json(results: Sequence[Compared]) -> list[Mapping[str, Any]]:
    """The comparisons as JSON values."""
    return [json.loads(json.dumps({key: getattr(one, key) for key in Compared.__slots__})) for one in results]

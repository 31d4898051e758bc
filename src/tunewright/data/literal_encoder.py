"""Encodes text in which some control tokens are meant and others are only written about, and text that must be cut.

It is a copy of the tokenizer that knows its control tokens by other names: one private-use character each. A control
token that the template wrote is replaced by its stand-in before encoding and so keeps its id; the same letters in a
message match nothing and are encoded as text. One more token, the cut, keeps what is before it and behind it apart and
is taken out afterwards. Everything else - merges, white space rules, offsets - is the tokenizer's own.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunewright.data.masks import Rendered, Span, labels_of
from tunewright.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_FIRST_STAND_IN = 0x100000
_CUT = "\U0010fffd"
_STAND_INS = re.compile("[\U00100000-\U0010fffd]")
_PLAIN_TOKEN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


@dataclass(frozen=True, slots=True)
class LiteralEncoder:
    """`stand_ins`: control token -> its character; `control_ids`: ids that only a stand-in may lead to; `original`: ids
    of the copy that differ from the tokenizer's, and the tokenizer's."""

    tokenizer: Tokenizer
    stand_ins: dict[str, str]
    control_ids: frozenset[int]
    original: dict[int, int]
    cut_id: int

    def row(self, rendered: Rendered, meant: Sequence[tuple[int, int]]) -> tuple[list[int], list[int]]:
        """Ids and labels of a render whose control tokens at the places `meant` are tokens, cut at the ends of its spans.

        Raises `InputError` if the text uses the stand-ins itself, or if the tokenizer's own model makes a control token.
        """
        if _STAND_INS.search(rendered.text):
            raise InputError("the row holds control tokens as text beside private-use characters of plane 16",
                             mend="remove these characters from the row")
        cuts = {place for span in rendered.spans for place in span} - {0, len(rendered.text)}
        disguised = _disguise(rendered.text, meant, cuts, self.stand_ins)
        encoding = self.tokenizer.encode(disguised.text, add_special_tokens=False)
        if not self.control_ids.isdisjoint(encoding.ids):
            raise InputError("the tokenizer makes a control token of plain text", mend="remove the control token from the row")
        spans = tuple(Span(disguised.place(span.start), disguised.place(span.end)) for span in rendered.spans)
        labels = labels_of(encoding.ids, encoding, spans)
        if labels is None:
            raise InputError("a token holds the end of a prompt and the beginning of an answer")
        kept = [(one, label) for one, label in zip(encoding.ids, labels, strict=True) if one != self.cut_id]
        change = self.original
        return [change.get(one, one) for one, _ in kept], [change.get(label, label) for _, label in kept]


def literal_encoder(tokenizer: Tokenizer, control: Sequence[str]) -> LiteralEncoder:
    """A `LiteralEncoder` for these control tokens of the tokenizer, which is only read."""
    from tokenizers import Tokenizer as Backend

    wanted = set(control)
    state: dict[str, Any] = json.loads(tokenizer.to_str())
    stand_ins: dict[str, str] = {}
    for token in state["added_tokens"]:
        if token["content"] in wanted:
            stand_ins[token["content"]] = chr(_FIRST_STAND_IN + len(stand_ins))
            token["content"] = stand_ins[token["content"]]
    names = {token["content"]: token["content"] for token in state["added_tokens"]}
    names |= {stand_in: text for text, stand_in in stand_ins.items()}
    state["added_tokens"].append({"id": tokenizer.get_vocab_size() + len(names), "content": _CUT, **_PLAIN_TOKEN})
    renamed = Backend.from_str(json.dumps(state | {"truncation": None, "padding": None, "post_processor": None}))
    # A renamed token that the model's own vocabulary holds gets a new id behind it, and so may the tokens after it.
    original = {_id(renamed, name): _id(tokenizer, text) for name, text in names.items()}
    control_ids = frozenset(_id(tokenizer, text) for text in stand_ins) - original.keys()
    moved = {one: own for one, own in original.items() if one != own}
    return LiteralEncoder(renamed, stand_ins, control_ids, moved, _id(renamed, _CUT))


def _id(tokenizer: Tokenizer, token: str) -> int:
    number = tokenizer.token_to_id(token)
    if number is None:
        raise InputError(f"the tokenizer has no id for its own token {token!r}", mend="fetch the model again")
    return int(number)


@dataclass(frozen=True, slots=True)
class _Disguised:
    """A text with stand-ins and cuts; behind place `ends[i]` of the original, `shifts[i]` characters more than there."""

    text: str
    ends: tuple[int, ...]
    shifts: tuple[int, ...]

    def place(self, character: int) -> int:
        """A place of the original, in this text: behind a cut that was made there."""
        before = bisect_right(self.ends, character)
        return character + (self.shifts[before - 1] if before else 0)


def _disguise(text: str, meant: Sequence[tuple[int, int]], cuts: set[int], stand_ins: dict[str, str]) -> _Disguised:
    pieces: list[str] = []
    ends: list[int] = []
    shifts = [0]
    at = 0
    for start, end in sorted([*meant, *((cut, cut) for cut in cuts)], key=lambda place: (place[1], place[0])):
        pieces += [text[at:start], _CUT if start == end else stand_ins[text[start:end]]]
        at = end
        ends.append(end)
        shifts.append(shifts[-1] + 1 - (end - start))
    return _Disguised("".join([*pieces, text[at:]]), tuple(ends), tuple(shifts[1:]))

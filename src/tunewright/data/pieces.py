"""How a byte-level tokenizer cuts text into pieces before it encodes each by itself, done outside of it, and checked against it.

A piece - a word with the space before it, a number, a run of signs - always becomes the same tokens, so that a piece that was seen
before need not be encoded again. The cut is a regular expression in `tokenizer.json`. It is compiled here twice: for ASCII text, in
which its classes are short lists, and for any other. Neither is trusted: the first must cut every combination of three kinds of
characters as the tokenizer does, the second every character that a text holds, among others, when it is first seen. A text with a
character that is cut otherwise, or that a normalizer might change, is left to the tokenizer.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Cut = Callable[[str], list[str]]

_GPT2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""The expression that `ByteLevel` stands for."""

_LLAMA3: Final = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
                  r"\s+(?!\S)|\s+")
_QWEN: Final = _LLAMA3.replace("{1,3}", "")
_WHOLE: Final = ([_GPT2], [_LLAMA3], [_QWEN])
"""Expressions that have an alternative for every character, so that no text lies between two matches."""

_LLAMA3_IN_ASCII: Final = (r"'(?i:[stmd]|re|ve|ll)|[^\r\nA-Za-z0-9]?+[A-Za-z]++|[0-9]{1,3}+| ?[^\sA-Za-z0-9]++[\r\n]*+|\s*[\r\n]++|"
                           r"\s+(?!\S)|\s++")
_IN_ASCII: Final = {
    _GPT2: r" ?[A-Za-z]++|'(?:[stmd]|re|ve|ll)| ?[^\sA-Za-z0-9]++|\s+(?!\S)| ?[0-9]++|\s++",
    _LLAMA3: _LLAMA3_IN_ASCII, _QWEN: _LLAMA3_IN_ASCII.replace("{1,3}+", "")}
"""The same for ASCII text: what is frequent comes first, and what was matched is not given back."""

_ASCII_CLASSES: Final = {
    "L": "A-Za-z", "N": "0-9", "Lu": "A-Z", "Ll": "a-z", "Nd": "0-9", "M": "", "Lt": "", "Lm": "", "Lo": "", "Mn": "", "Nl": "", "No": ""}
_KINDS: Final = ("a", "s", "l", "e", "v", "r", "d", "m", "t", "A", "S", "L", "0", "7", " ", "\n", "\r", "\t", "\x0b", "\x1c", "\x00", "'",
                 ".", "_", "/", "<", "\x7f")
"""Characters of ASCII, at least one of each kind that expressions tell apart."""
_AMONG: Final = ("{}", "a{}", "{}a", "1{}", "{}1", " {}", "{} ", ".{}", "{}.", "'{}", "{}{}", "\n{}", "{}\n", "A{}a", "  {}b", "{}中",
                 "中{}")


@dataclass(frozen=True)
class Pieces:
    """`ascii_cuts` and `cuts`: the steps of the cut, one after the other; `backend` does it for comparison.

    `is_normalized`: the tokenizer brings text to NFC first. `is_whole`: there is one step, and it leaves nothing out.
    """

    backend: Tokenizer
    ascii_cuts: tuple[Cut, ...]
    cuts: tuple[Cut, ...]
    is_normalized: bool
    is_whole: bool
    _known: set[str] = field(default_factory=set, repr=False)
    _strange: set[str] = field(default_factory=set, repr=False)

    def of(self, text: str) -> list[str] | None:
        """The pieces of a text without added tokens, or None if the tokenizer itself must be asked."""
        if text.isascii():
            return self.ascii_cuts[0](text) if self.is_whole else _applied(self.ascii_cuts, text)
        return _applied(self.cuts, text) if self._knows(text) else None

    def _knows(self, text: str) -> bool:
        """Whether each character of the text is cut as the tokenizer cuts it."""
        if self._known.issuperset(text):
            return True
        for one in set(text) - self._known - self._strange:
            is_fit = not self.is_normalized or _is_plain(one)
            agrees = is_fit and self._agrees(form.format(one, one) for form in _AMONG)
            (self._known if agrees else self._strange).add(one)
        return self._strange.isdisjoint(text)

    def _agrees(self, texts: Iterable[str]) -> bool:
        return all(_applied(self.cuts, text) == true_pieces(self.backend, text) for text in texts)

    def is_true_for_ascii(self) -> bool:
        """Whether ASCII text is cut as the tokenizer cuts it: each character by itself and among others, all triples of kinds."""
        alone = (form.format(chr(one), chr(one)) for one in range(128) for form in _AMONG if form.isascii())
        kinds = ("".join(three) for three in product(_KINDS, repeat=3))
        return all(_applied(self.ascii_cuts, text) == true_pieces(self.backend, text) for texts in (alone, kinds) for text in texts)


def pieces_of(backend: Tokenizer) -> Pieces | None:
    """The pieces of a tokenizer; None for one that is not cut by expressions that we know."""
    expressions = _expressions(backend)
    if expressions is None:
        return None
    import regex  # type: ignore[import-untyped]

    try:
        wide = tuple(regex.compile(one).findall for one in expressions)
        narrow = tuple(re.compile(_in_ascii(one), re.ASCII).findall for one in expressions)
    except (re.error, regex.error, KeyError):
        return None
    made = Pieces(backend, narrow, wide, backend.normalizer is not None, expressions in _WHOLE)
    return made if made.is_true_for_ascii() else None


def true_pieces(backend: Tokenizer, text: str) -> list[str]:
    """The pieces as the tokenizer cuts them."""
    return [text[begin:end] for _, (begin, end) in backend.pre_tokenizer.pre_tokenize_str(text)]


def _expressions(backend: Tokenizer) -> list[str] | None:
    """The expressions of the steps, in order, if every step is one and bytes are what is encoded in the end."""
    normalizer, found = _state(backend.normalizer), _state(backend.pre_tokenizer)
    if normalizer.get("type") not in (None, "NFC") or not found or not _is_bytes_alone(backend.model):
        return None
    steps: Sequence[Mapping[str, Any]] = found["pretokenizers"] if found["type"] == "Sequence" else [found]
    expressions = [_expression(step) for step in steps]
    if steps[-1]["type"] != "ByteLevel" or None in expressions:
        return None
    return [one for one in expressions if one]


def _state(part: Any) -> dict[str, Any]:
    """A part of a tokenizer as `tokenizer.json` has it; empty where there is none."""
    return {} if part is None else dict(json.loads(part.__getstate__()))


def _is_bytes_alone(model: Any) -> bool:
    """Whether a piece becomes tokens by its bytes, the same in any place and every time."""
    from tokenizers.models import BPE

    return (isinstance(model, BPE) and not model.dropout
            and not any((model.continuing_subword_prefix, model.end_of_word_suffix, model.byte_fallback)))


def _expression(step: Mapping[str, Any]) -> str | None:
    """The expression of one step, "" for none, None if it is not known as one."""
    kind = step["type"]
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return _GPT2 if step.get("use_regex", True) else ""
    if kind == "Digits":
        return r"\p{N}|[^\p{N}]+" if step["individual_digits"] else r"\p{N}+|[^\p{N}]+"
    if kind == "Split" and step["behavior"] == "Isolated" and not step.get("invert") and "Regex" in step["pattern"]:
        # What lies between two matches is a piece too; a text in which there is such a gap is left to the tokenizer.
        return str(step["pattern"]["Regex"])
    return None


def _in_ascii(expression: str) -> str:
    r"""The expression for ASCII text: `\p{..}` as the characters that it means there. Raises KeyError for a class we do not list."""
    if expression in _IN_ASCII:
        return _IN_ASCII[expression]
    pieces: list[str] = []
    inside = False
    at = 0
    for match in re.finditer(r"\\p\{(\w+)\}|\\.|\[\^?|\]", expression, re.DOTALL):
        pieces.append(expression[at : match.start()])
        at = match.end()
        word = match.group()
        if match.group(1) is not None:
            characters = _ASCII_CLASSES[match.group(1)]
            word = characters if inside else f"[{characters}]" if characters else "(?!)"
        elif word[0] in "[]":
            inside = word[0] == "["
        pieces.append(word)
    return "".join([*pieces, expression[at:]])


def _applied(cuts: Sequence[Cut], text: str) -> list[str] | None:
    """The text cut by each step in turn; None if a step left something out."""
    pieces = [text]
    for cut in cuts:
        pieces = cut(text) if len(pieces) == 1 else [inner for piece in pieces for inner in cut(piece)]
    return pieces if sum(map(len, pieces)) == len(text) else None


def _is_plain(character: str) -> bool:
    """Whether NFC leaves the character alone in any company: assigned, no mark, no part of a Hangul syllable."""
    return (unicodedata.category(character) not in ("Cn", "Mn", "Mc", "Me") and not "\u1100" <= character <= "\u11ff"
            and not "\ua960" <= character <= "\ua97f" and not "\ud7b0" <= character <= "\ud7ff"
            and unicodedata.normalize("NFC", character) == character)

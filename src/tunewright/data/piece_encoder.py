"""Renders to tokens by the pieces that they are made of: each new piece is encoded once, by the tokenizer's own model.

The result is the tokenizer's own to the last id. Whatever is not certain to be - a control token written in a message, a span that
begins inside a piece, a character that the cut is not known for - gives None, and the row is encoded whole.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from tunewright.data.control_tokens import literal_pattern
from tunewright.data.masks import Rendered
from tunewright.data.pieces import Pieces, pieces_of
from tunewright.data.records import IGNORE_INDEX

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import Model

_MOST_CHARACTERS: Final = 8_000_000
"""Of the pieces that are remembered; then memory is given back and the work starts anew. Each piece counts its length and 32 more."""
_ID_BYTES: Final = 4
_SHORT: Final = 16
_MOST_SHORT: Final = 1000
"""Stretches of up to 16 characters are remembered whole: what templates write between messages."""

ArrayRow = tuple["NDArray[np.int32]", "NDArray[np.int32]"]


Part = tuple[Sequence[str], bytes]
"""A stretch of a render: its pieces, and the bytes of their ids."""


class Memory(dict[str, bytes]):
    """Pieces, each with the bytes of its ids. A piece that is asked for and not there is encoded by the tokenizer's `model`, which is
    given the bytes of the piece as the characters `letters` that stand for them."""

    def __init__(self, model: Model, letters: Sequence[str]) -> None:
        super().__init__()
        self._tokenize = model.tokenize
        self._letters = dict(enumerate(letters))
        self._room = _MOST_CHARACTERS

    def __missing__(self, piece: str) -> bytes:
        if self._room < 0:
            self.clear()
            self._room = _MOST_CHARACTERS
        self._room -= len(piece) + 32
        found = self._tokenize(piece.encode().decode("latin-1").translate(self._letters))
        ids = self[piece] = array("i", [token.id for token in found]).tobytes()
        return ids

    def ids(self, pieces: Sequence[str]) -> bytes:
        """The ids of all pieces, end to end."""
        return b"".join(map(self.__getitem__, pieces))


@dataclass(frozen=True)
class PieceEncoder:
    """`added` finds the added tokens in a text, each as a group, `added_ids` has the bytes of the id of each."""

    pieces: Pieces
    memory: Memory
    added: re.Pattern[str]
    added_ids: dict[str, bytes]
    _short: dict[str, Part] = field(default_factory=dict, repr=False)

    def row(self, rendered: Rendered, control: frozenset[str], special: frozenset[str]) -> ArrayRow | None:
        """Ids and labels [tokens] of a render, or None. What messages say of `control` is text; of what answers say, only `special`."""
        marks = [place for span in rendered.spans for place in span]
        marked = 0
        places: list[int] = []
        parts: list[bytes] = []
        at = tokens = 0
        is_token = True
        for part in self.added.split(rendered.text):  # stretches of text and added tokens in turns
            is_token = not is_token
            end = at + len(part)
            if is_token:
                if part in control and _is_said(rendered, at, end, part in special):
                    return None
                known: Part | None = ((part,), self.added_ids[part])
            else:
                known = self._short.get(part) or self._cut(part)
            if known is None:
                return None
            pieces, ids = known
            while marked < len(marks) and marks[marked] < end:
                before = self._tokens_before(pieces, marks[marked] - at)
                if before is None:
                    return None
                places.append(tokens + before)
                marked += 1
            parts.append(ids)
            tokens += len(ids) // _ID_BYTES
            at = end
        places += [tokens] * (len(marks) - marked)
        return _labelled(np.frombuffer(b"".join(parts), np.int32), places)

    def _cut(self, stretch: str) -> Part | None:
        """The pieces of a text without added tokens and the bytes of their ids, or None if the tokenizer itself must be asked."""
        pieces = self.pieces.of(stretch)
        if pieces is None:
            return None
        known = (pieces, self.memory.ids(pieces))
        if len(stretch) <= _SHORT and len(self._short) < _MOST_SHORT:
            self._short[stretch] = known
        return known

    def _tokens_before(self, pieces: Sequence[str], character: int) -> int | None:
        """How many tokens there are before this character of some pieces; None if it lies inside one."""
        at = 0
        for number, piece in enumerate(pieces):
            if at >= character:
                return len(self.memory.ids(pieces[:number])) // _ID_BYTES if at == character else None
            at += len(piece)
        return None


def piece_encoder(backend: Tokenizer) -> PieceEncoder | None:
    """The encoder by pieces of a tokenizer without post-processor, which is only read; None if it works in another way."""
    added = backend.get_added_tokens_decoder()
    pieces = pieces_of(backend) if _are_plain(list(added.values())) else None
    if pieces is None:
        return None
    found = literal_pattern([token.content for token in added.values()])
    return PieceEncoder(pieces, Memory(backend.model, letters_of_bytes()), re.compile(f"({found.pattern})", found.flags),
                        {token.content: array("i", [number]).tobytes() for number, token in added.items()})


def letters_of_bytes() -> list[str]:
    """[256]: the character that stands for each byte in a byte-level vocabulary: itself where it can be seen, else one from U+0100 on."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(0x100, 0x200))
    return [chr(byte if byte in seen else next(hidden)) for byte in range(256)]


def _labelled(ids: NDArray[np.int32], places: Sequence[int]) -> ArrayRow:
    """Ids, and labels that are the ids between each two of `places`, but for the first token, which nothing predicts."""
    labels = np.full(len(ids), IGNORE_INDEX, np.int32)
    for begin, end in zip(places[::2], places[1::2], strict=True):
        labels[begin:end] = ids[begin:end]
    labels[:1] = IGNORE_INDEX
    return ids, labels


def _are_plain(added: Sequence[AddedToken]) -> bool:
    """Whether a search for the longest finds added tokens as the tokenizer does: none takes white space with it or lies in another."""
    texts = [token.content for token in added]
    firsts = {text[:1] for text in texts}
    return (not any(token.single_word or token.lstrip or token.rstrip for token in added)
            and all(texts) and not any(first in text[1:] for text in texts for first in firsts))


def _is_said(rendered: Rendered, start: int, end: int, is_special: bool) -> bool:
    """Whether a control token at start:end is only written about: it touches a message, and no answer may hold it."""
    for run in rendered.runs:
        if run.start >= end:
            return False
        if start < run.end and (is_special or run.message not in rendered.answers):
            return True
    return False

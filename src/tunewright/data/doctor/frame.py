"""A few numbers of every row, column by column: what checks of a whole set read. About 80 bytes a row."""

from __future__ import annotations

import unicodedata
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import numpy as np

from tunewright.data.doctor.seen import Seen
from tunewright.data.records import Feedback, Message, Origin, Text, TokenIds

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIZE: Final = 16
NOTHING: Final = bytes(_SIZE)
"""The digest of what a row does not have: a document has no question."""


@dataclass(frozen=True)
class Frame:
    """All columns [rows]. `dataset` and `file` count in `datasets` and `files`; digests are 16 bytes.

    `whole` is of everything in the record; `prompt` and `answer` of the turns before the last answer and of that answer, with letter case,
    width and white space made alike; equal texts have equal digests. `tokens` and `trained` are empty where nothing was tokenised:
    `tokens` at full length, `trained` after cutting.
    """

    datasets: tuple[str, ...]
    files: tuple[str, ...]
    dataset: NDArray[np.uint32]
    file: NDArray[np.uint32]
    index: NDArray[np.int64]
    line: NDArray[np.int64]
    characters: NDArray[np.int64]
    whole: NDArray[np.bytes_]
    prompt: NDArray[np.bytes_]
    answer: NDArray[np.bytes_]
    tokens: NDArray[np.int64]
    trained: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.dataset)

    def of(self, dataset: str) -> NDArray[np.int64]:
        """The numbers of the rows of one set."""
        return np.flatnonzero(self.dataset == self.datasets.index(dataset)) if dataset in self.datasets else np.empty(0, np.int64)

    def origin(self, row: int) -> Origin:
        """Where the row came from."""
        return Origin(self.files[self.file[row]], int(self.index[row]), int(self.line[row]) or None)

    @property
    def sizes(self) -> tuple[NDArray[np.int64], str]:
        """The lengths of all rows, and their unit: tokens where there are any, else characters."""
        return (self.tokens, "tokens") if len(self.tokens) else (self.characters, "characters")


class FrameBuilder:
    """Collects the columns. Rows are measured, if at all, in the order in which they were added."""

    def __init__(self) -> None:
        self._datasets: dict[str, int] = {}
        self._files: dict[str, int] = {}
        self._places = (array("I"), array("I"))
        self._numbers = (array("q"), array("q"), array("q"))
        self._digests = (bytearray(), bytearray(), bytearray())
        self._measures = (array("q"), array("q"))

    def add(self, seen: Seen) -> None:
        """Append one row."""
        origin = seen.origin
        self._places[0].append(self._datasets.setdefault(seen.dataset, len(self._datasets)))
        self._places[1].append(self._files.setdefault(origin.file, len(self._files)))
        for column, number in zip(self._numbers, (origin.index, origin.line or 0, sum(map(len, seen.texts))), strict=True):
            column.append(number)
        for digest, made in zip(self._digests, digests(seen), strict=True):
            digest.extend(made)

    def measured(self, tokens: int, trained: int) -> None:
        """The tokens of the next row that has none yet."""
        self._measures[0].append(tokens)
        self._measures[1].append(trained)

    def build(self) -> Frame:
        """The columns; they share memory with this builder, which must not be added to any more."""
        dataset, file = (np.frombuffer(one, np.uint32) for one in self._places)
        index, line, characters = (np.frombuffer(one, np.int64) for one in self._numbers)
        whole, prompt, answer = (np.frombuffer(one, f"S{_SIZE}") for one in self._digests)
        tokens, trained = (np.frombuffer(one, np.int64) for one in self._measures)
        return Frame(tuple(self._datasets), tuple(self._files), dataset, file, index, line, characters, whole, prompt, answer, tokens,
                     trained)


def digests(seen: Seen) -> tuple[bytes, bytes, bytes]:
    """Of the whole record, of its question, and of its answer."""
    whole = _digest(_parts(seen))
    if not seen.messages:
        return whole, NOTHING, NOTHING
    answer = seen.answer
    asked = _digest([part for one in seen.prompt for part in (one.role, _alike(one.content))])
    if answer is None or (isinstance(seen.record, Feedback) and not seen.record.desirable):  # what is called bad is no answer to learn
        return whole, asked, NOTHING
    said = _digest([_alike(answer.content), *(f"{call.name} {call.raw}" for call in answer.tool_calls)])
    return whole, asked, said


def _parts(seen: Seen) -> list[str]:
    record = seen.record
    if isinstance(record, Text):
        return [record.text]
    if isinstance(record, TokenIds):
        return [str(list(record.input_ids)), str(list(record.labels))]
    parts = [part for one in seen.messages for part in _message(one)] + ([repr(record.tools)] if record.tools else [])
    return [*parts, str(record.desirable)] if isinstance(record, Feedback) else parts


def _message(one: Message) -> tuple[str, ...]:
    if not one.tool_calls and one.reasoning is None:
        return one.role, one.content
    return one.role, one.content, one.reasoning or "", *(f"{call.name} {call.raw}" for call in one.tool_calls)


def _alike(text: str) -> str:
    """The text without differences of letter case, width and white space."""
    return " ".join((text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold().split())


def _digest(parts: Sequence[str]) -> bytes:
    """16 bytes, another for other parts: each is preceded by its length. Never `NOTHING`, and its last byte is never 0, which numpy would
    not tell from an end."""
    made = blake2b(digest_size=_SIZE)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        made.update(len(encoded).to_bytes(8, "little") + encoded)
    return made.digest()[:-1] + b"\x01"

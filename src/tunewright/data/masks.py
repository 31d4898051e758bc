"""Which characters of a render are trained, and which tokens that makes.

An answer is trained from where the prompt for it ends to the end of the literal that closes it.

A token never lies partly in an answer: where one would - a prompt that ends in a space, before a word - the text is cut
there before it is encoded, just as prompt and answer are encoded apart when the model generates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tunewright.data.records import IGNORE_INDEX

if TYPE_CHECKING:
    from tokenizers import Encoding

    from tunewright.data.template_trace import Run


class Span(NamedTuple):
    """Characters start:end."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class MaskPolicy:
    """`train_on_prompt`: everything but answers that are not trained. `mask_history`: of the answers, only the last."""

    train_on_prompt: bool = False
    mask_history: bool = False


ANSWERS_ONLY = MaskPolicy()


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as text, the spans of it that are trained, the runs of it that come from messages, and which of
    these messages are answers."""

    text: str
    spans: tuple[Span, ...]
    runs: tuple[Run, ...]
    answers: frozenset[int]


def chosen_spans(answers: list[tuple[Span, bool]], length: int, policy: MaskPolicy) -> tuple[Span, ...]:
    """The trained spans of a render of `length` characters, given each answer's span and whether it may be trained."""
    last = len(answers) - 1
    kept = [may and (number == last or not policy.mask_history) for number, (_, may) in enumerate(answers)]
    if not policy.train_on_prompt:
        return tuple(span for (span, _), keep in zip(answers, kept, strict=True) if keep)
    spans: list[Span] = []
    at = 0
    for (span, _), keep in zip(answers, kept, strict=True):
        if not keep:
            spans.append(Span(at, span.start))
            at = span.end
    return tuple(span for span in [*spans, Span(at, length)] if span.start < span.end)


def labels_of(ids: list[int], encoding: Encoding, spans: tuple[Span, ...]) -> list[int] | None:
    """Labels [tokens]: the id where trained, else IGNORE_INDEX; None if a token crosses the bounds of a span.

    Spans are in characters of the text that `encoding` encoded. The first token is never trained: nothing precedes it.
    """
    labels = [IGNORE_INDEX] * len(ids)
    for span in spans:
        begin, end = _first_token(encoding, span.start), _first_token(encoding, span.end)
        if begin is None or end is None:
            return None
        labels[begin:end] = ids[begin:end]
    labels[:1] = [IGNORE_INDEX] * len(labels[:1])
    return labels


def _first_token(encoding: Encoding, character: int) -> int | None:
    """The token that begins at this character, or the next where a tokenizer drops it; None if one holds it inside."""
    total = len(encoding)
    for at in range(character, _bounds(encoding, total - 1)[1] if total else 0):
        token = encoding.char_to_token(at)
        if token is not None:
            return int(token) if _bounds(encoding, token)[0] >= character else None
    return total


def _bounds(encoding: Encoding, token: int) -> tuple[int, int]:
    return encoding.token_to_chars(token) or (0, 0)

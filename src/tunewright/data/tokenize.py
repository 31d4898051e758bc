"""Conversations and documents to token ids and labels.

A conversation is encoded whole, as one text without added special tokens, so that a BOS token is there once or not at all:
as the template writes it. The tokenizer is only read: what it was last called with does not matter, and it stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from tunewright.data.control_tokens import literal_pattern, meant_and_written
from tunewright.data.literal_encoder import LiteralEncoder, literal_encoder
from tunewright.data.masks import ANSWERS_ONLY, MaskPolicy, Rendered, labels_of
from tunewright.data.piece_encoder import ArrayRow, PieceEncoder, piece_encoder
from tunewright.data.records import IGNORE_INDEX, Conversation, Message, Origin, Prompt
from tunewright.data.template_trace import Tools
from tunewright.data.templates import Renderer
from tunewright.errors import InputError, require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerBase

MANY_ROWS = 64
"""Rows encoded at once from which the proof of the faster way, a tenth of a CPU second, is paid back."""
Row = tuple[list[int], list[int]]
"""Ids and labels [tokens]; a label is the id at its own place, or IGNORE_INDEX."""


def encode_conversation(conversation: Conversation, renderer: Renderer, tokenizer: PreTrainedTokenizerBase,
                        masks: MaskPolicy = ANSWERS_ONLY) -> Row:
    """Ids and labels of a conversation at full length. Raises `InputError` as `Renderer.render_spans` does."""
    return encode_conversations([conversation], renderer, tokenizer, masks)[0]


def encode_conversations(conversations: Sequence[Conversation], renderer: Renderer, tokenizer: PreTrainedTokenizerBase,
                         masks: MaskPolicy = ANSWERS_ONLY) -> list[Row]:
    """`encode_conversation` of each, in one batch."""
    encoder = _encoder(tokenizer, len(tokenizer), renderer.special, renderer.control)
    rendered = [renderer.render_spans(conversation, masks) for conversation in conversations]
    return encoder.rows(rendered, [str(conversation.origin) for conversation in conversations])


def encode_conversations_fast(conversations: Sequence[Conversation], renderer: Renderer, tokenizer: PreTrainedTokenizerBase,
                              masks: MaskPolicy = ANSWERS_ONLY) -> list[Row | ArrayRow]:
    """The same rows as `encode_conversations`, most of them as arrays of int32, several times as fast for many."""
    encoder = _encoder(tokenizer, len(tokenizer), renderer.special, renderer.control)
    rendered = [renderer.render_spans_fast(conversation, masks) for conversation in conversations]
    return encoder.fast_rows(rendered, [conversation.origin for conversation in conversations])


def encode_prompt(messages: Sequence[Message], renderer: Renderer, tokenizer: PreTrainedTokenizerBase,
                  tools: Tools = ()) -> list[int]:
    """Ids of the prompt for the next answer."""
    encoder = _encoder(tokenizer, len(tokenizer), renderer.special, renderer.control)
    return encoder.rows([renderer.trace_prompt(messages, tools)], ["the prompt"])[0][0]


def encode_prompts(prompts: Sequence[Prompt], renderer: Renderer, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """`encode_prompt` of each, in one batch. Raises `InputError` naming the row that the template refuses."""
    encoder = _encoder(tokenizer, len(tokenizer), renderer.special, renderer.control)
    rendered = []
    for prompt in prompts:
        try:
            rendered.append(renderer.trace_prompt(prompt.messages, prompt.tools))
        except InputError as error:
            raise InputError(error.message, where=error.where or str(prompt.origin), mend=error.mend) from error
    return [ids for ids, _ in encoder.rows(rendered, [str(prompt.origin) for prompt in prompts])]


def encode_text(text: str, tokenizer: PreTrainedTokenizerBase) -> Row:
    """Ids and labels of a document: a BOS token if the tokenizer adds one by itself, the text, one EOS token.

    Raises `InputError` if the text is empty or the tokenizer has no EOS token.
    """
    return encode_texts([text], tokenizer)[0]


def encode_texts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    """`encode_text` of each, in one batch."""
    require(all(text.strip() for text in texts), "a document is empty", mend="remove it from the data set")
    end = tokenizer.eos_token_id
    require(end is not None, "the tokenizer has no EOS token to end a document with",
            mend="name eos_token in tokenizer_config.json")
    rows: list[Row] = []
    for ids in tokenizer(list(texts), add_special_tokens=True, padding=False, truncation=False, verbose=False)["input_ids"]:
        ids = ids if ids[-1] == end else [*ids, end]
        rows.append((ids, [IGNORE_INDEX, *ids[1:]]))
    return rows


def truncate(ids: Sequence[int] | NDArray[np.int32], labels: Sequence[int] | NDArray[np.int32], cutoff_len: int, policy: str) -> Row | None:
    """A row brought to `cutoff_len` tokens: its first ones (`cut_right`), its last ones (`cut_left`), or None (`drop`).

    A cut on the right loses the end of the last answer, its terminator included; one on the left loses the system prompt
    and the BOS token. The first label of what is left is IGNORE_INDEX. Whether a trained token is left is the caller's to
    check: a row without one must not be used.
    """
    if len(ids) <= cutoff_len:
        return list(ids), list(labels)
    if policy == "drop":
        return None
    if policy not in ("cut_right", "cut_left"):
        raise InputError(f"cutoff_policy is {policy!r}", mend="use drop, cut_right or cut_left")
    kept = slice(0, cutoff_len) if policy == "cut_right" else slice(len(ids) - cutoff_len, len(ids))
    return list(ids[kept]), [IGNORE_INDEX, *labels[kept][1:]]


@dataclass(frozen=True)
class _Encoder:
    """A private copy of the tokenizer without truncation, padding and post-processing; its offsets are not trimmed."""

    backend: Tokenizer
    special: frozenset[str]
    control: tuple[str, ...]

    def rows(self, rendered: Sequence[Rendered], names: Sequence[str]) -> list[Row]:
        """Ids and labels of each render; `names` say where each came from."""
        encodings = self.backend.encode_batch([one.text for one in rendered], add_special_tokens=False)
        return [self._row(*each) for each in zip(rendered, encodings, names, strict=True)]

    def fast_rows(self, rendered: Sequence[Rendered], origins: Sequence[Origin]) -> list[Row | ArrayRow]:
        """The same, by pieces where that is certain to give the same, and where rows are enough for the proof of that to pay."""
        pieces = self._pieces if len(rendered) >= MANY_ROWS or "_pieces" in vars(self) else None
        if pieces is None:
            return [*self.rows(rendered, [str(origin) for origin in origins])]
        control = self._control
        rows: list[Row | ArrayRow | None] = [pieces.row(one, control, self.special) for one in rendered]
        left = [number for number, row in enumerate(rows) if row is None]
        if left:
            whole = self.rows([rendered[number] for number in left], [str(origins[number]) for number in left])
            for number, row in zip(left, whole, strict=True):
                rows[number] = row
        return [row for row in rows if row is not None]

    def _row(self, rendered: Rendered, encoding: Encoding, name: str) -> Row:
        meant, written = meant_and_written(rendered, self._pattern, self.special)
        if not written:
            ids = encoding.ids
            labels = labels_of(ids, encoding, rendered.spans)
            if labels is not None:
                return ids, labels
        try:
            return self._literal.row(rendered, meant)
        except InputError as error:
            raise InputError(error.message, where=name, mend=error.mend) from error

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return literal_pattern(self.control)

    @cached_property
    def _control(self) -> frozenset[str]:
        return frozenset(self.control)

    @cached_property
    def _pieces(self) -> PieceEncoder | None:
        return piece_encoder(self.backend)

    @cached_property
    def _literal(self) -> LiteralEncoder:
        return literal_encoder(self.backend, self.control)


@lru_cache(maxsize=4)
def _encoder(tokenizer: PreTrainedTokenizerBase, size: int, special: tuple[str, ...], control: tuple[str, ...]) -> _Encoder:
    """The encoder of a tokenizer; `size`, its number of tokens, is part of the key so that added tokens are seen."""
    from tokenizers import Tokenizer as Backend

    require(tokenizer.is_fast, "the tokenizer has no offsets, from which the trained part of a conversation is found",
            mend="use a model directory with a tokenizer.json")
    own = Backend.from_str(tokenizer.backend_tokenizer.to_str())
    own.no_truncation()
    own.no_padding()
    own.post_processor = None
    return _Encoder(own, frozenset(special), control)

"""Tokens that a run adds to a tokenizer: the file that describes them, and which of them are new.

What is new is kept beside the tokenizer while the run lasts: the rows of these tokens have seen no training. Beyond the run,
tokenizer_config.json names every token that was ever added, so that rows may hold special ones that no template writes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tunewright.config.model import TokenizerConfig
from tunewright.data.control_tokens import ADDED_TOKENS
from tunewright.errors import InputError, refuse, require

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

_SLOT = "tunewright_new_tokens"


@dataclass(frozen=True, slots=True)
class NewTokens:
    """`texts` of the tokens that this run gave an id, in the order of their ids, and the descriptions that some of them have."""

    texts: tuple[str, ...] = ()
    descriptions: Mapping[str, str] = field(default_factory=dict)


def new_tokens(tokenizer: PreTrainedTokenizerBase) -> NewTokens:
    """What `add_new_tokens` added to this tokenizer."""
    found: NewTokens = tokenizer.__dict__.get(_SLOT, NewTokens())
    return found


def add_new_tokens(tokenizer: PreTrainedTokenizerBase, config: TokenizerConfig) -> None:
    """Add the tokens that the run asks for, ordinary ones first, each behind the ids that there are; report their ids.

    A token that the tokenizer has already keeps its id and its embedding, which is reported. Raises `InputError` for one that
    is spelt like a part of the vocabulary that stands for other text, as the letters of bytes do.
    """
    descriptions = read_descriptions(config.new_special_tokens_config) if config.new_special_tokens_config is not None else {}
    special = tuple(descriptions) or config.add_special_tokens
    key = "new_special_tokens_config" if descriptions else "add_special_tokens"
    twice = sorted(set(special) & set(config.add_tokens))
    require(not twice, f"{key}: {twice[0] if twice else ''!r} is in add_tokens too", mend="name it once")
    fresh = _add(tokenizer, config.add_tokens, "add_tokens", special=False) + _add(tokenizer, special, key, special=True)
    if fresh:
        earlier = tokenizer.init_kwargs.get(ADDED_TOKENS, [])
        tokenizer.init_kwargs[ADDED_TOKENS] = [*earlier, *fresh]
        setattr(tokenizer, _SLOT, NewTokens(fresh, {text: descriptions[text] for text in fresh if text in descriptions}))


def read_descriptions(path: str) -> dict[str, str]:
    """Token -> description, in the order of the file: YAML or JSON, `"<token>": description text`.

    Raises `InputError` naming file and line for a file that is no such mapping, and for an empty token or description.
    """
    from tunewright.dialects.document import read_document

    try:
        document = read_document(path)
    except InputError as error:
        raise InputError(f"new_special_tokens_config: {error.message}", where=error.where,
                         mend=error.mend if error.where != path else 'write one `"<token>": description` on each line') from error
    require(bool(document.values), "new_special_tokens_config: the file names no token", where=path,
            mend='write one `"<token>": description` on each line')
    for token, description in document.values.items():
        where = document.where(token)
        require(bool(token.strip()), f"new_special_tokens_config: a token is {'white space' if token else 'empty'}", where=where,
                mend="name a token by its text")
        require(isinstance(description, str) and bool(description.strip()),
                f"new_special_tokens_config: the description of '{token}' is no text", where=where, mend="describe it in a few words")
    return dict(document.values)


def _add(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], key: str, *, special: bool) -> tuple[str, ...]:
    """Add those that are not there; the ones that got a new id."""
    if not texts:
        return ()
    vocabulary = tokenizer.get_vocab()
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    fresh = [text for text in texts if text not in vocabulary]
    pieces = [text for text in texts if text in vocabulary and text not in added]
    for text in pieces:
        stands_for = tokenizer.decode([vocabulary[text]])
        if stands_for != text:
            refuse(f"{key}: '{text}' cannot be added: the tokenizer's vocabulary has a part of that spelling, which stands for "
                   f"{stands_for!r}", mend="choose another spelling")
    tokenizer.add_tokens([text for text in texts if text in fresh or text in pieces], special_tokens=special)
    if fresh:
        log.info("%s: %d new: %s", key, len(fresh), _listed(tokenizer, fresh))
    if len(fresh) < len(texts):
        known = [text for text in texts if text not in fresh]
        log.info("%s: %d there already, whose ids and embeddings stay: %s", key, len(known), _listed(tokenizer, known))
    return tuple(fresh)


def _listed(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> str:
    shown = ", ".join(f"{text} ({tokenizer.convert_tokens_to_ids(text)})" for text in texts[:8])
    return shown if len(texts) <= 8 else f"{shown} and {len(texts) - 8} more"

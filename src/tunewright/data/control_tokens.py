"""Control tokens: which they are, and which of those in a render are meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from os.path import commonprefix
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunewright.data.masks import Rendered

ADDED_TOKENS: Final = "tunewright_added_tokens"
"""Entry of tokenizer_config.json that lists the tokens which a run added, for rows to hold."""


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The tokenizer's special tokens as text."""
    return tuple(token.content for token in tokenizer.added_tokens_decoder.values() if token.special and token.content.strip())


def control_tokens(tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[str, ...]:
    """Special tokens, and those other added tokens that the template writes (`<tool_call>`, `<think>`), as text.

    Special tokens that a run added for its rows control nothing, unless the template writes them.
    """
    written = (token.content for token in tokenizer.added_tokens_decoder.values() if not token.special)
    for_rows = {text for text in tokenizer.init_kwargs.get(ADDED_TOKENS, ()) if text not in template}
    return (*(text for text in special_tokens(tokenizer) if text not in for_rows),
            *(text for text in written if text in template and re.search(r"[^\w\s]", text)))


def literal_pattern(literals: Sequence[str]) -> re.Pattern[str]:
    """Finds any of these texts, the longest first; nothing if there are none."""
    longest_first = sorted({text for text in literals if text}, key=lambda text: (-len(text), text))
    # What all begin with stands alone at the front, where the search for it is many times as fast.
    shared = commonprefix(longest_first)  # noqa: RUF071 - characters are what is meant
    rest = "|".join(re.escape(text[len(shared) :]) for text in longest_first)
    return re.compile(f"{re.escape(shared)}(?:{rest})" if longest_first else "(?!)")


def meant_and_written(rendered: Rendered, pattern: re.Pattern[str],
                      special: frozenset[str]) -> tuple[list[tuple[int, int]], bool]:
    """Places of the control tokens that are meant, and whether there are others that are only written about.

    Meant are those outside messages, and those in answers that are not special tokens.
    """
    meant: list[tuple[int, int]] = []
    written = False
    found = pattern.search(rendered.text)
    while found is not None:
        start, end = found.span()
        touched = [run for run in rendered.runs if run.start < end and start < run.end]
        if not touched or (found.group() not in special and all(run.message in rendered.answers for run in touched)):
            meant.append((start, end))
        else:
            written = True
            # Letters that a message and the template only form together: go on where the template's part begins.
            end = min(end, *(run.end for run in touched))
        found = pattern.search(rendered.text, end)
    return meant, written

"""Control tokens: which they are, and which of those in a render are meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tunewright.data.masks import Rendered

def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The tokenizer's special tokens as text."""
    return tuple(token.content for token in tokenizer.added_tokens_decoder.values() if token.special and token.content.strip())


def control_tokens(tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[str, ...]:
    """Special tokens, and those other added tokens that the template writes (`<tool_call>`, `<think>`), as text."""
    written = (token.content for token in tokenizer.added_tokens_decoder.values() if not token.special)
    return (*special_tokens(tokenizer),
            *(text for text in written if text in template and re.search(r"[^\w\s]", text)))


def literal_pattern(literals: Sequence[str]) -> re.Pattern[str]:
    """Finds any of these texts, the longest first; nothing if there are none."""
    longest_first = sorted({text for text in literals if text}, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


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

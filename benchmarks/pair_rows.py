"""Preference pairs as token ids, made from text on disk: what every side of `dpo_step.py` trains on.

All prompts have as many tokens, and so have all answers: padding gives no side an advantage. The same arguments give the same pairs.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
from prose import library_words

PROMPT: Final = 150
ANSWER: Final = 80
_SEED: Final = 7


class Pair(NamedTuple):
    """A prompt and its two answers, under the names that TRL gives them."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


def write_pairs(path: Path, tokenizer: Path, count: int) -> None:
    """Write `count` pairs to `path` (.jsonl), each a stretch of text of its own."""
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    words, draw = library_words(), random.Random(_SEED)

    def text(tokens: int) -> list[int]:
        first = draw.randrange(len(words) - 2 * tokens)
        found: list[int] = encoder.encode("".join(words[first : first + 2 * tokens]), add_special_tokens=False).ids[:tokens]
        return found + found[:1] * (tokens - len(found))

    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            file.write(json.dumps(Pair(text(PROMPT), text(ANSWER), text(ANSWER))._asdict()) + "\n")


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of such a file."""
    return [Pair(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]

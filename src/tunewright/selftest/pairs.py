"""Synthetic preferences: of two answers the one with more words of the better half of the alphabet is chosen."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tunewright.selftest.tiny import WORDS

BETTER = WORDS[: len(WORDS) // 2]
WORSE = WORDS[len(WORDS) // 2:]


def write_pairs(path: Path, count: int, *, seed: int = 0) -> Path:
    """`count` rows of ragged length with prompt, chosen and rejected; the two counts of a row are at least two apart."""
    chance = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            worse, better = chance.choice(((0, 2), (0, 3), (0, 4), (1, 3), (1, 4), (2, 4)))
            chosen, rejected = (_answer(chance, number) for number in (better, worse))
            question = " ".join(chance.choices(WORDS, k=chance.randint(1, 6)))
            file.write(json.dumps({"instruction": question, "chosen": chosen, "rejected": rejected}) + "\n")
    return path


def _answer(chance: random.Random, better: int) -> str:
    words = [*chance.choices(BETTER, k=better), *chance.choices(WORSE, k=4 - better)]
    chance.shuffle(words)
    return " ".join(words)

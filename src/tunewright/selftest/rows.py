"""Rows of every kind that a stage reads, made on the spot: documents, pairs of answers, marked answers, prompts with a reward."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Final

from tunewright.selftest.pairs import write_pairs
from tunewright.selftest.tiny import WORDS, write_rows

REWARDS: Final = '''"""The share of the letter a in an answer."""


def share(completions):
    return [text.count("a") / max(len(text), 1) for text in completions]
'''
PARTS: Final = (("", 22, 0), ("_more", 9, 2), ("_held_out", 5, 1))
"""What follows the name of a kind in the names of its files: rows to train on, to mix with these, and to evaluate; how many; the seed."""


def write_every_kind(folder: Path) -> None:
    """`rows`, `prompts`, `documents`, `pairs` and `marked`, each in three parts, as JSON lines; `rewards.py`; token files `a` and `b`."""
    for part, count, seed in PARTS:
        write_rows(folder / f"rows{part}.jsonl", count, seed=seed)
        write_rows(folder / f"prompts{part}.jsonl", count, seed=seed, longest=5)
        write_documents(folder / f"documents{part}.jsonl", count, seed=seed)
        write_feedback(write_pairs(folder / f"pairs{part}.jsonl", count, seed=seed), folder / f"marked{part}.jsonl")
    (folder / "rewards.py").write_text(REWARDS, encoding="utf-8")
    for name, count in (("a", 100), ("b", 60)):
        write_tokens(folder / name, count)


def write_documents(path: Path, count: int, *, seed: int = 0) -> Path:
    """Documents of ragged length."""
    chance = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            file.write(json.dumps({"text": " ".join(chance.choices(WORDS, k=chance.randint(3, 30)))}) + "\n")
    return path


def write_feedback(pairs: Path, path: Path) -> Path:
    """One row for each pair of the file, by turns its chosen answer, marked as good, and its rejected one."""
    with path.open("w", encoding="utf-8") as file:
        for number, line in enumerate(pairs.read_text(encoding="utf-8").splitlines()):
            row, good = json.loads(line), number % 2 == 0
            file.write(json.dumps({
                "instruction": row["instruction"], "output": row["chosen" if good else "rejected"], "kto_tag": good}) + "\n")
    return path


def write_tokens(prefix: Path, documents: int) -> None:
    """Megatron's token files, of documents of random tokens."""
    import numpy as np

    from tunewright.data.megatron.writer import IndexedWriter

    chance = random.Random(documents)
    with IndexedWriter(prefix, np.dtype("uint16")) as writer:
        for _ in range(documents):
            writer.add([chance.randrange(3, 300) for _ in range(chance.randint(2, 60))])

"""Makes the demo's data: sentences about orders and the JSON record that each of them states."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tunewright.assets.demo.facts import HELDOUT, INSTRUCTION, NUMBER_WORDS, TRAIN, Facts

SURNAME_SHARE = 0.5
SPELLED_SHARE = 0.4


@dataclass(frozen=True)
class Row:
    """One order: the sentence, the record in it, and the pattern that made the sentence."""

    sentence: str
    record: dict[str, str | int]
    pattern: str

    @property
    def answer(self) -> str:
        """The record as one line of JSON, keys in the order of the instruction."""
        return json.dumps(self.record, ensure_ascii=False)

    def messages(self) -> dict[str, list[dict[str, str]]]:
        """The row in the OpenAI messages format."""
        turns = (("system", INSTRUCTION), ("user", self.sentence), ("assistant", self.answer))
        return {"messages": [{"role": role, "content": content} for role, content in turns]}


def make_rows(facts: Facts, number: int, seed: int) -> list[Row]:
    """`number` rows drawn from `facts`, every pattern equally often; the same seed gives the same rows.

    No sentence occurs twice.
    """
    rng = random.Random(seed)
    rows: dict[str, Row] = {}
    patterns: list[str] = []
    while len(rows) < number:
        if not patterns:
            patterns = rng.sample(facts.patterns, len(facts.patterns))
        row = _row(facts, patterns.pop(), rng)
        rows.setdefault(row.sentence, row)
    return list(rows.values())


def training_rows(number: int, seed: int) -> list[Row]:
    """Rows to train on."""
    return make_rows(TRAIN, number, seed)


def heldout_rows(number: int, seed: int) -> list[Row]:
    """Rows to judge by: their names, items, cities and patterns occur in no training row."""
    return make_rows(HELDOUT, number, seed)


def to_jsonl(rows: Sequence[Row]) -> str:
    """One JSON object in the OpenAI messages format per line."""
    return "".join(json.dumps(row.messages(), ensure_ascii=False) + "\n" for row in rows)


def _row(facts: Facts, pattern: str, rng: random.Random) -> Row:
    name = rng.choice(facts.first_names)
    if rng.random() < SURNAME_SHARE:
        name = f"{name} {rng.choice(facts.surnames)}"
    item = f"{rng.choice(facts.adjectives)} {rng.choice(facts.nouns)}"
    quantity = _quantity(rng)
    city = rng.choice(facts.cities)
    spelled = NUMBER_WORDS[quantity] if quantity in NUMBER_WORDS and rng.random() < SPELLED_SHARE else str(quantity)
    sentence = pattern.format(name=name, quantity=spelled, item=item, city=city)
    sentence = sentence[0].upper() + sentence[1:]
    return Row(sentence, {"name": name, "item": item, "quantity": quantity, "city": city}, pattern)


def _quantity(rng: random.Random) -> int:
    """Half of the quantities are small enough to be spelled out."""
    return rng.choice(tuple(NUMBER_WORDS)) if rng.random() < 0.5 else rng.randint(13, 99)

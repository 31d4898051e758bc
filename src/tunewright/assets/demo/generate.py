"""Makes the demo's data: sentences about orders and the YAML record that each of them states."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

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
        """The record as YAML, a line for each key, in the order of the instruction."""
        return "\n".join(f"{key}: {value}" for key, value in self.record.items())

    def messages(self) -> dict[str, list[dict[str, str]]]:
        """The row in the OpenAI messages format."""
        turns = (("system", INSTRUCTION), ("user", self.sentence), ("assistant", self.answer))
        return {"messages": [{"role": role, "content": content} for role, content in turns]}


def make_rows(facts: Facts, number: int, seed: int) -> list[Row]:
    """`number` rows drawn from `facts`; the same seed gives the same rows, and more rows begin with the fewer ones.

    Every list is dealt like a deck of cards, so each of its entries occurs as often as the next, give or take one. No
    sentence occurs twice.
    """
    rng = random.Random(seed)
    decks = _Decks.of(facts, rng)
    rows: dict[str, Row] = {}
    while len(rows) < number:
        row = _row(decks, rng)
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


@dataclass(frozen=True)
class _Decks:
    """An endless deck for each list of the facts."""

    first_names: Iterator[str]
    surnames: Iterator[str]
    adjectives: Iterator[str]
    nouns: Iterator[str]
    cities: Iterator[str]
    patterns: Iterator[str]

    @classmethod
    def of(cls, facts: Facts, rng: random.Random) -> _Decks:
        return cls(*(_deal(getattr(facts, field.name), rng) for field in fields(facts)))


def _deal(entries: Sequence[str], rng: random.Random) -> Iterator[str]:
    """The entries in random order, then again in another, without end."""
    while True:
        yield from rng.sample(entries, len(entries))


def _row(decks: _Decks, rng: random.Random) -> Row:
    name = next(decks.first_names)
    if rng.random() < SURNAME_SHARE:
        name = f"{name} {next(decks.surnames)}"
    item = f"{next(decks.adjectives)} {next(decks.nouns)}"
    quantity = _quantity(rng)
    city = next(decks.cities)
    spelled = NUMBER_WORDS[quantity] if quantity in NUMBER_WORDS and rng.random() < SPELLED_SHARE else str(quantity)
    pattern = next(decks.patterns)
    sentence = pattern.format(name=name, quantity=spelled, item=item, city=city)
    sentence = sentence[0].upper() + sentence[1:]
    return Row(sentence, {"name": name, "item": item, "quantity": quantity, "city": city}, pattern)


def _quantity(rng: random.Random) -> int:
    """Half of the quantities are small enough to be spelled out."""
    return rng.choice(tuple(NUMBER_WORDS)) if rng.random() < 0.5 else rng.randint(13, 99)

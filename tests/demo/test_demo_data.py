"""The demo's data: a function of the seed, held-out rows with nothing in common with the training rows, records true to the text."""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from itertools import combinations

import pytest
import yaml

from tunewright.assets.demo.facts import HELDOUT, INSTRUCTION, NUMBER_WORDS, TRAIN, Facts
from tunewright.assets.demo.generate import Row, heldout_rows, make_rows, to_jsonl, training_rows
from tunewright.commands.demo import DATA_SEED, HELDOUT_ROWS, TRAINING_ROWS

FIELDS = ("first_names", "surnames", "adjectives", "nouns", "cities", "patterns")
VALUES = FIELDS[:-1]


def words(facts: Facts, field: str) -> set[str]:
    """Every word of a list, in lower case."""
    return {word for entry in getattr(facts, field) for word in entry.lower().split()}


def bare(pattern: str) -> str:
    """A pattern without case, punctuation and order of its places: what is left of two that differ in those only is equal."""
    text = re.sub(r"\{\w+\}", "#", pattern.lower())
    return " ".join(text.translate(str.maketrans("", "", string.punctuation.replace("#", ""))).split())


@pytest.mark.parametrize("field", VALUES)
def test_no_word_of_a_value_is_on_both_sides(field: str) -> None:
    """Oracle: set intersection, word by word; `Keller` as a name in one list may not be a city in the other either."""
    everywhere = set().union(*(words(TRAIN, other) for other in VALUES))
    assert words(HELDOUT, field) & everywhere == set()


def test_no_held_out_value_stands_in_a_training_sentence() -> None:
    """Nor in its phrasing: oracle, the words of the sentences that the demo trains on."""
    seen = {word for row in training_rows(TRAINING_ROWS, DATA_SEED) for word in re.findall(r"[\w-]+", row.sentence.lower())}
    assert set().union(*(words(HELDOUT, field) for field in VALUES)) & seen == set()


def test_no_phrasing_is_on_both_sides_even_with_other_case_or_punctuation() -> None:
    assert {bare(pattern) for pattern in HELDOUT.patterns} & {bare(pattern) for pattern in TRAIN.patterns} == set()


@pytest.mark.parametrize("facts", [TRAIN, HELDOUT], ids=["train", "heldout"])
def test_facts_are_well_formed(facts: Facts) -> None:
    """Each entry occurs once; each pattern has each of the four places once."""
    for field in FIELDS:
        entries = getattr(facts, field)
        assert len(set(entries)) == len(entries), field
    for pattern in facts.patterns:
        places = sorted(name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None)
        assert places == ["city", "item", "name", "quantity"], pattern


def test_generated_rows_share_no_value_and_no_phrasing() -> None:
    """The same on the rows themselves, as the demo makes them: names, items, cities, patterns, sentences."""
    train, heldout = training_rows(TRAINING_ROWS, DATA_SEED), heldout_rows(HELDOUT_ROWS, DATA_SEED)
    assert (len(train), len(heldout)) == (TRAINING_ROWS, HELDOUT_ROWS)
    for key in ("name", "item", "city"):
        assert {row.record[key] for row in train} & {row.record[key] for row in heldout} == set()
    assert {row.pattern for row in train} & {row.pattern for row in heldout} == set()
    assert {row.pattern for row in train} == set(TRAIN.patterns)
    assert {row.pattern for row in heldout} == set(HELDOUT.patterns)
    assert not any(one.sentence == other.sentence for one, other in combinations(train, 2))


def test_every_entry_is_dealt_as_often_as_the_next() -> None:
    """Counted by hand: 17 rows from 5 cities and 3 patterns hold each city 3 or 4 times and each pattern 5 or 6 times."""
    cities = ("Oslo", "Lima", "Bonn", "Quito", "Turin")
    facts = Facts(("Ada",), ("Lovelace",), ("red", "blue"), ("kites",), cities,
                  tuple(f"{place}: {{name}}, {{quantity}} {{item}}, {{city}}" for place in "abc"))
    rows = make_rows(facts, 17, 2)
    counts = Counter(str(row.record["city"]) for row in rows)
    assert set(counts) == set(cities) and set(counts.values()) <= {3, 4}
    assert set(Counter(row.pattern for row in rows).values()) <= {5, 6}


def test_rows_are_a_function_of_the_seed() -> None:
    assert training_rows(30, 5) == training_rows(30, 5)
    assert training_rows(30, 5) != training_rows(30, 6)
    assert training_rows(20, 5) == training_rows(30, 5)[:20]


def test_a_row_by_hand() -> None:
    """With one entry in every list there is one sentence for a quantity; a spelled number stands as a number in the record."""
    facts = Facts(("Ada",), ("Lovelace",), ("brass",), ("gears",), ("Turin",), ("send {quantity} {item} to {name}, {city}",))
    rows = make_rows(facts, 40, 1)
    spelled = {word: number for number, word in NUMBER_WORDS.items()}
    for row in rows:
        found = re.fullmatch(r"Send (\w+) brass gears to (Ada|Ada Lovelace), Turin", row.sentence)
        assert found is not None, row.sentence
        quantity = spelled.get(found[1]) or int(found[1])
        assert row.record == {"name": found[2], "item": "brass gears", "quantity": quantity, "city": "Turin"}
        assert 2 <= quantity <= 99
    assert {row.record["name"] for row in rows} == {"Ada", "Ada Lovelace"}
    assert any(row.sentence.split()[1] in spelled for row in rows)


def test_the_record_is_stated_by_the_sentence() -> None:
    """And the answer is that record: read by PyYAML, not by us."""
    for row in (*training_rows(800, 3), *heldout_rows(100, 3)):
        assert yaml.safe_load(row.answer) == row.record
        quantity = int(row.record["quantity"])
        assert all(str(row.record[key]).lower() in row.sentence.lower() for key in ("name", "item", "city"))
        assert re.search(rf"\b({quantity}|{NUMBER_WORDS.get(quantity, quantity)})\b", row.sentence, re.IGNORECASE)


def test_jsonl_is_messages_with_the_instruction() -> None:
    """Whole value of one line, by hand."""
    row = Row("Oslo: Ada wants two kites.", {"name": "Ada", "item": "kites", "quantity": 2, "city": "Oslo"}, "")
    assert to_jsonl([row]).count("\n") == 1
    assert json.loads(to_jsonl([row])) == {"messages": [
        {"role": "system", "content": INSTRUCTION},
        {"role": "user", "content": "Oslo: Ada wants two kites."},
        {"role": "assistant", "content": "name: Ada\nitem: kites\nquantity: 2\ncity: Oslo"}]}

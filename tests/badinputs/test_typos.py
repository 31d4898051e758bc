"""Misspelt names and values: what was meant is offered. The oracle is the name that was misspelt, by seeded edits; the ledger of the five
documents gives the values that may be misspelt."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.badinputs.workspace import answer
from tests.spec.test_ledger import parameters
from tunewright.config import spelling
from tunewright.config.param import DIALECTS
from tunewright.config.refused.table import refused_in
from tunewright.config.spelling import SYNONYMS, did_you_mean, nearest
from tunewright.config.table import names_in

VOCABULARIES = ("native", *DIALECTS)
ROUNDS = 3
"""Typos of each name at each distance."""
WANTED = 0.95
LETTERS = string.ascii_lowercase + "_"

MARKS = {
    "native": "cutoff_policy: cut_right\nlora_rank: 8\npadding_free: false\n",
    "llamafactory": "stage: sft\ndo_train: true\nlora_rank: 8\noverwrite_cache: true\nplot_loss: true\n",
    "cli_reference": "evaluation_strategy: 'no'\nlora_bias: none\nmodel_name_or_path: m\nearly_stopping_threshold: 0\n",
    "sft_json": "train_file_name: a.csv\nmax_seq_length: 512\ntrain_mode: lora\n",
    "qlora_script": "model_name: m\ndata_path: a.json\nn_epochs: 1\nlora_r: 8\n",
    "mindspeed_fsdp2": "training:\n  lr: 1.0e-5\n  save_steps: 100\n  output_dir: out\nmodel:\n  model_name_or_path: m\n",
}
"""The beginning of a file by which each vocabulary is recognised."""


def known(dialect: str) -> list[str]:
    """Every name of a vocabulary, honoured or refused."""
    return [*names_in(dialect), *refused_in(dialect)]


def everywhere() -> frozenset[str]:
    """Every name of every vocabulary, and its opposite."""
    names = {name for dialect in VOCABULARIES for name in known(dialect)}
    return frozenset({*names, *(f"no_{name}" for name in names), *SYNONYMS, "dialect"})


def edited(word: str, chance: random.Random) -> str:
    """The word with one slip: a letter more, less, another, or two swapped."""
    at = chance.randrange(len(word))
    letter = chance.choice(LETTERS)
    return chance.choice((word[:at] + letter + word[at:], word[:at] + word[at + 1:], word[:at] + letter + word[at + 1:],
                          word[:at] + word[at + 1:at + 2] + word[at] + word[at + 2:]))


def misspelt(words: list[str], distance: int, chance: random.Random, taken: frozenset[str]) -> Iterator[tuple[str, str]]:
    """(typo, word) for each word whose typo is a name at all, and nobody's."""
    seen: set[str] = set()
    for word in words:
        typo = word
        for _ in range(distance):
            typo = edited(typo, chance) or word
        if typo.isidentifier() and typo not in taken and typo not in seen:
            seen.add(typo)
            yield typo, word


def offered(line: str) -> list[str]:
    """The names that an answer offers: `did you mean A, B or C?`."""
    match = re.search(r"did you mean (.*)\?$", line)
    return re.split(r", | or ", match[1]) if match else []


@pytest.mark.parametrize("dialect", VOCABULARIES)
def test_misspelt_names(dialect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One or two slips in every name, three times: `check` offers the right one for 95 % of them, and names the line of each."""
    monkeypatch.chdir(tmp_path)
    chance, taken = random.Random(f"typos of {dialect}"), everywhere()
    right = {1: 0, 2: 0}
    asked = {1: 0, 2: 0}
    for distance in [1, 2] * ROUNDS:
        pairs = list(misspelt(known(dialect), distance, chance, taken))
        Path("c.yaml").write_text(f"dialect: {dialect}\n" + "".join(f"{typo}: 1\n" for typo, _ in pairs))
        code, lines = answer(["check", "c.yaml"], capsys)
        answers = {int(match[1]): line for line in lines if (match := re.match(r"error: c\.yaml:(\d+): ", line))}
        assert code == 2
        for number, (typo, name) in enumerate(pairs, start=2):
            assert answers[number].startswith(f"error: c.yaml:{number}: {typo}: ")
            asked[distance] += 1
            right[distance] += name in offered(answers[number])
    assert sum(asked.values()) >= 5 * len(known(dialect))
    assert all(right[distance] >= WANTED * asked[distance] for distance in asked), (right, asked)


@pytest.mark.parametrize("dialect", VOCABULARIES)
def test_misspelt_names_in_a_file_that_does_not_name_its_vocabulary(
    dialect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    """A few keys of a vocabulary and one misspelt, every tenth name or so: the vocabulary is recognised all the same."""
    monkeypatch.chdir(tmp_path)
    chance = random.Random(f"files of {dialect}")
    text = MARKS[dialect]
    pairs = list(misspelt(chance.sample(known(dialect), 30), 1, chance, everywhere()))
    missed: list[str] = []
    for typo, name in pairs:
        Path("c.yaml").write_text(f"{text}{typo}: 1\n")
        _, lines = answer(["check", "c.yaml"], capsys)
        told = [line for line in lines if f": {typo}: " in line]
        assert len(told) == 1 and told[0].startswith(f"error: c.yaml:{text.count(chr(10)) + 1}: ")
        missed += [] if name in offered(told[0]) else [told[0]]
    assert len(missed) <= (1 - WANTED) * len(pairs), missed


def _is_taken(dialect: str, name: str, value: str, capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether the value, spelt right, is no problem in itself."""
    Path("c.yaml").write_text(f"dialect: {dialect}\n{name}: '{value}'\n")
    told = [line for line in answer(["check", "c.yaml"], capsys)[1] if line.startswith(f"error: c.yaml:2: {name}")]
    return not any(" is not " in line or " refused" in line for line in told)


CHOICES = [(dialect, name) for dialect in DIALECTS for name, entry in parameters(dialect).items()
           if name in names_in(dialect) and not entry.get("choices_open")
           and any(isinstance(choice, str) for choice in entry.get("choices") or ())]


@pytest.mark.parametrize(("dialect", "name"), CHOICES)
def test_misspelt_values(dialect: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                         capsys: pytest.CaptureFixture[str]) -> None:
    """A slip in a documented value that we have: it is offered, in the vocabulary's own spelling."""
    monkeypatch.chdir(tmp_path)
    row = names_in(dialect)[name][0]
    documented = parameters(dialect)[name]["choices"]
    values = [one for one in documented if isinstance(one, str) and len(one) > 2 and _is_taken(dialect, name, one, capsys)]
    chance = random.Random(f"values of {dialect} {name}")
    for value in values:
        typo = next(one for one in (edited(value, chance) for _ in range(99)) if one.strip("_") and one not in documented
                    and one not in (row.param.choices or ()) and one.isidentifier())
        Path("c.yaml").write_text(f"dialect: {dialect}\n{name}: '{typo}'\n")
        code, lines = answer(["check", "c.yaml"], capsys)
        told = [line for line in lines if line.startswith(f"error: c.yaml:2: {name}")]
        assert code == 2 and len(told) == 1, (typo, lines)
        assert value in [one.strip("'") for one in offered(told[0])], (value, told[0])


SPELLINGS = [
    ("LoRA_Rank", ["lora_rank"]), ("lora-rank", ["lora_rank"]), ("loraRank", ["lora_rank"]), ("lora_ranks", ["lora_rank"]),
    ("rank_lora", ["lora_rank"]), ("epochs", ["num_train_epochs"]), ("batch_size", ["per_device_train_batch_size"]),
    ("lr", ["learning_rate"]), ("max_length", ["max_length", "cutoff_len"]), ("lora_r", ["lora_rank"]),
    ("modle", ["mode", "model_name_or_path"]), ("xyzzy", []), ("", []), ("名前", []),
]


@pytest.mark.parametrize(("typed", "wanted"), SPELLINGS)
def test_other_ways_to_spell(typed: str, wanted: list[str]) -> None:
    """Case, dashes, plurals, order of words, and what other trainers call it; nothing where nothing is near. Worked by hand."""
    found = nearest(typed, known("native"))
    assert sorted(found[:len(wanted)]) == sorted(wanted) and bool(found) == bool(wanted) and len(found) <= 3


def test_synonyms_are_names_of_some_vocabulary() -> None:
    """What a synonym stands for exists."""
    names = {name for dialect in VOCABULARIES for name in known(dialect)}
    assert {name for several in SYNONYMS.values() for name in several} - names == set()


@pytest.mark.parametrize(("close", "words"), [
    ([], None), (["a"], "did you mean a?"), (["a", "b"], "did you mean a or b?"), (["a", "b", "c"], "did you mean a, b or c?")])
def test_the_words_of_an_offer(close: list[str], words: str | None) -> None:
    """One, two and three names."""
    assert did_you_mean(close) == words


def test_an_offer_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hundred unknown keys and all names, edits are counted for one pair in twenty at most: lengths and letters exclude the rest."""
    counted = []
    true_edits = spelling._edits
    monkeypatch.setattr(spelling, "_edits", lambda *pair: counted.append(pair) or true_edits(*pair))
    names = known("llamafactory")
    for number in range(100):
        nearest(f"per_device_{number}_tarin_batch", names)
    assert 0 < len(counted) < 100 * len(names) / 20

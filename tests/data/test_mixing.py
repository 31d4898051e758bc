"""Mixtures of several sets: against a naive restatement, and against `datasets.interleave_datasets` where nothing is drawn."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewright.config.data import DataConfig, evaluation_sets
from tunewright.data.examples import ExampleSet, StoreBuilder, Tokens
from tunewright.data.mixing import ONCE, OVER, UNDER, interleaved, set_draws
from tunewright.data.records import Origin
from tunewright.errors import InputError

STRATEGIES = st.sampled_from([UNDER, OVER, ONCE])
SIZES = st.lists(st.integers(1, 9), min_size=2, max_size=4)
SEEDS = st.integers(0, 2**63)
IN_DATASETS = {UNDER: "first_exhausted", OVER: "all_exhausted", ONCE: "all_exhausted_without_replacement"}


def naive(sizes: list[int], strategy: str, turns: Any, *, rounds: bool) -> list[list[int]]:
    """Row after row: whose turn it is, its next row; what happens at the end of a set, said in plain words."""
    at = [0] * len(sizes)
    whole = [False] * len(sizes)
    found = []
    for number in turns:
        if strategy == ONCE and whole[number]:
            continue
        found.append([number, at[number]])
        at[number] += 1
        if at[number] == sizes[number]:
            whole[number], at[number] = True, 0
        over = any(whole) if strategy == UNDER else all(whole)
        if over and (not rounds or strategy == ONCE or number == len(sizes) - 1):
            return found
    raise AssertionError


@given(SIZES, STRATEGIES, SEEDS)
@settings(deadline=None)
def test_in_turns(sizes: list[int], strategy: str, seed: int) -> None:
    """The seed does not matter."""
    assert interleaved(sizes, strategy, (), seed).tolist() == naive(sizes, strategy, cycle(range(len(sizes))), rounds=True)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 20)), min_size=2, max_size=4), STRATEGIES, SEEDS)
@settings(deadline=None)
def test_by_draws(sets: list[tuple[int, int]], strategy: str, seed: int) -> None:
    """Draws by the textbook: the first set whose cumulated probability exceeds a uniform number of 53 bits."""
    sizes = [size for size, _ in sets]
    total = sum(weight for _, weight in sets)
    probabilities = [weight / total for _, weight in sets]

    def draws() -> Any:
        generator = np.random.PCG64(np.random.SeedSequence([seed, 0, 103]))
        borders = np.cumsum(probabilities) / np.cumsum(probabilities)[-1]
        while True:
            uniform = (int(generator.random_raw()) >> 11) / 2**53
            yield next(number for number, border in enumerate(borders) if uniform < border)

    assert interleaved(sizes, strategy, probabilities, seed).tolist() == naive(sizes, strategy, draws(), rounds=False)


@pytest.mark.parametrize("strategy", [UNDER, OVER, ONCE])
@pytest.mark.parametrize("sizes", [[3, 4, 5], [5, 4, 3], [1, 7], [4, 4], [2, 9, 2, 5]])
def test_in_turns_as_datasets_does(sizes: list[int], strategy: str) -> None:
    """Oracle: `datasets` itself."""
    import datasets

    sets = [datasets.Dataset.from_dict({"row": [[number, row] for row in range(size)]}) for number, size in enumerate(sizes)]
    theirs = datasets.interleave_datasets(sets, stopping_strategy=IN_DATASETS[strategy])["row"]
    assert interleaved(sizes, strategy, (), 0).tolist() == list(theirs)


def test_shares_are_the_probabilities() -> None:
    """100,000 draws, within five standard deviations of the binomial counts."""
    draws = np.concatenate([part for part, _ in zip(set_draws((0.7, 0.2, 0.1), 3), range(25), strict=False)])
    counts = np.bincount(draws, minlength=3)
    for count, probability in zip(counts, (0.7, 0.2, 0.1), strict=True):
        assert abs(count - len(draws) * probability) < 5 * (len(draws) * probability * (1 - probability)) ** 0.5


def test_a_seed_is_a_mixture() -> None:
    """The same for a seed, whatever was asked before; another for another seed."""
    first = interleaved([50, 50], OVER, (0.5, 0.5), 1).tolist()
    interleaved([9, 9], OVER, (0.5, 0.5), 5)
    assert interleaved([50, 50], OVER, (0.5, 0.5), 1).tolist() == first != interleaved([50, 50], OVER, (0.5, 0.5), 2).tolist()


def test_one_probability_for_each_set() -> None:
    with pytest.raises(InputError, match="2 probabilities, but 3 data sets"):
        interleaved([1, 2, 3], OVER, (0.5, 0.5), 0)


def test_a_mixture_comes_to_an_end() -> None:
    """A part of a millionth of a set of 1,000 rows would take about 10^9 draws. Under interleave_under the other set ends it."""
    with pytest.raises(InputError, match=r"with 1e-06 it takes about 1e\+09 draws until the 1000 rows of data set 2 are whole"):
        interleaved([10, 1000], OVER, [0.999999, 0.000001], 0)
    assert len(interleaved([10, 1000], UNDER, [0.999999, 0.000001], 0)) >= 10


def test_pieces_of_a_document_stay_together() -> None:
    """Two sets: one of a document in three pieces and one whole, one of two rows. Worked by hand."""
    first, second = StoreBuilder(["a"]), StoreBuilder(["b"])
    for index, token in ((0, 10), (0, 11), (0, 12), (1, 13)):
        first.add(tokens(token), Origin("a", index, index + 1))
    for index, token in ((0, 20), (1, 21)):
        second.add(tokens(token), Origin("b", index, index + 1))
    stores = [first.build(), second.build()]
    mixed = ExampleSet.mixed(stores, [store.whole_rows() for store in stores], interleaved([2, 2], UNDER, (), 0))
    assert [int(mixed[number].input_ids[0]) for number in range(len(mixed))] == [10, 11, 12, 20, 13, 21]
    assert mixed.lengths.tolist() == [2] * 6


def test_a_file_in_two_sets_is_one_file() -> None:
    """So that a row held out of the one is not trained in the other."""
    builders = [StoreBuilder(["x", "a"]), StoreBuilder(["a"])]
    builders[0].add(tokens(1), Origin("x", 0))
    for builder in builders:
        builder.add(tokens(2), Origin("a", 0))
        builder.add(tokens(3), Origin("a", 1))
    assert ExampleSet.of([builder.build() for builder in builders]).rows_by_origin().tolist() == [0, 1, 2, 1, 2]


def tokens(first: int) -> Tokens:
    return Tokens(np.array([first, 1], np.int32), np.array([-100, 1], np.int32))


@pytest.mark.parametrize(("data", "names"), [
    ({"eval_dataset": ("dev.jsonl",)}, ["validation"]),
    ({"eval_dataset": ("dev.jsonl", "x/hard.jsonl")}, ["validation"]),
    ({"eval_dataset": ("dev.jsonl", "x/hard.jsonl"), "eval_on_each_dataset": True}, ["dev", "hard"]),
    ({"eval_dataset": ("a/dev.jsonl", "b/dev.jsonl", "c/dev.csv"), "eval_on_each_dataset": True}, ["dev", "dev_2", "dev_3"]),
    ({"eval_dataset": ("a b.jsonl", {"file_name": "c.json"}), "eval_on_each_dataset": True}, ["a_b", "c"]),
    ({"eval_dataset": ({"quick": "a.jsonl", "slow": {"file_name": "b.jsonl"}},)}, ["quick", "slow"]),
    ({"eval_dataset": ("dev.jsonl", "dev_3.jsonl", "x/dev.jsonl", "y/dev.jsonl"), "eval_on_each_dataset": True},
     ["dev", "dev_3", "dev_2", "dev_4"]),
    ({"eval_dataset": ("dev.jsonl", "x/dev.jsonl", {"dev": "c.jsonl", "dev_2": "d.jsonl"})}, ["dev_3", "dev_4", "dev", "dev_2"]),
    ({"eval_dataset": ({"quick": "a.jsonl"},)}, ["validation"]),
    ({"eval_dataset": ()}, []),
])
def test_names_of_evaluation_sets(data: dict[str, Any], names: list[str]) -> None:
    assert list(evaluation_sets(DataConfig(**data))) == names



"""Findings about whole sets against naive restatements on generated rows."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.data.doctor.duplicates import conflicts, duplicates, leakage, repeated_answers, split_twins
from tunewright.data.doctor.finding import Finding
from tunewright.data.doctor.frame import Frame, FrameBuilder
from tunewright.data.doctor.histogram import histogram
from tunewright.data.doctor.lengths import cut, hardly_trained, outliers
from tunewright.data.doctor.seen import Seen
from tunewright.data.records import Conversation, Feedback, Message, Origin, Text
from tunewright.data.spread import Spread

Pair = tuple[str, str]
QUESTIONS = st.sampled_from(["a", "A", " a", "a\n", "b", "b ", "b\tc", "b c", "ａ", ""])
ANSWERS = st.sampled_from(["x", "X", "y", "y  z", "y z"])
PAIRS = st.lists(st.tuples(QUESTIONS, ANSWERS), max_size=40)


def seen(dataset: str, index: int, pair: Pair) -> Seen:
    origin = Origin(f"{dataset}.jsonl", index, index + 1)
    record = Conversation((Message("user", pair[0]), Message("assistant", pair[1])), origin)
    return Seen(dataset, origin, {}, record)


def frame(**sets: Sequence[Pair]) -> Frame:
    builder = FrameBuilder()
    for name, pairs in sets.items():
        for index, pair in enumerate(pairs):
            builder.add(seen(name, index, pair))
    return builder.build()


def alike(text: str) -> str:
    """What the checks call the same text, said the slow way."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def told(findings: list[Finding]) -> dict[str, tuple[int, list[str]]]:
    return {one.check: (one.count, [str(place) for place in one.places]) for one in findings}


@given(PAIRS)
def test_duplicates(pairs: list[Pair]) -> None:
    """Row by row against all earlier ones; exactly equal texts only."""
    again = [(index, pairs.index(pair)) for index, pair in enumerate(pairs) if pair in pairs[:index]]
    wanted = {"duplicate-row": (len(again), [f"t.jsonl:{row + 1} (as t.jsonl:{first + 1})" for row, first in again][:20])} if again else {}
    assert told(duplicates(frame(t=pairs), "t")) == wanted


@given(PAIRS)
def test_conflicts(pairs: list[Pair]) -> None:
    """For each question the set of its answers; more than one is a conflict, case, width and blanks aside."""
    answers: dict[str, set[str]] = {}
    for question, answer in pairs:
        answers.setdefault(alike(question), set()).add(alike(answer))
    number = sum(len(found) > 1 for found in answers.values())
    assert {check: count for check, (count, _) in told(conflicts(frame(t=pairs), "t")).items()} == (
        {"conflicting-answers": number} if number else {})


def test_answers_called_bad_contradict_nothing() -> None:
    """KTO's rows: a question with a good answer and a bad one is what it learns from; two good ones are told. An
    answer that is called bad 20 times is not learned by heart."""
    marks = [("a", "x", True), ("a", "y", False), ("b", "x", True), ("b", "y", True), *(("c", f"{number}", True) for number in range(16)),
             *((f"d{number}", "no", False) for number in range(20))]
    builder = FrameBuilder()
    for index, (question, answer, mark) in enumerate(marks):
        origin = Origin("t.jsonl", index, index + 1)
        builder.add(Seen("t", origin, {}, Feedback((Message("user", question), Message("assistant", answer)), mark, origin)))
    built = builder.build()
    assert told(conflicts(built, "t"))["conflicting-answers"][0] == 2
    assert repeated_answers(built, "t") == []


@given(PAIRS, PAIRS)
def test_leakage(training: list[Pair], evaluation: list[Pair]) -> None:
    """Whole rows first; of the others those whose question is there."""
    questions = {alike(question) for question, _ in training}
    whole = [pair in training for pair in evaluation]
    asked = [not is_there and alike(pair[0]) in questions for pair, is_there in zip(evaluation, whole, strict=True)]
    found = {check: count for check, (count, _) in told(leakage(frame(t=training, e=evaluation), ["t"], ["e"])).items()}
    assert found == {check: sum(counted) for check, counted in (("leaked-row", whole), ("leaked-question", asked)) if any(counted)}


@given(st.lists(st.sampled_from("abcdefgh"), min_size=0, max_size=80))
def test_repeated_answers(answers: list[str]) -> None:
    """The commonest answer, where it is in more than a twentieth of at least 20 rows; loud over a fifth."""
    found = repeated_answers(frame(t=[(str(index), answer) for index, answer in enumerate(answers)]), "t")
    counts = Counter(answers)
    often = [count for count in counts.values() if count > 0.05 * len(answers)] if len(answers) >= 20 else []
    if not often:
        assert found == []
        return
    assert (found[0].count, found[0].level) == (sum(often), "warning" if max(often) > 0.2 * len(answers) else "note")
    assert found[0].what.startswith(f"one answer is given in {max(often)} of {len(answers)} rows")


def test_documents_have_no_questions() -> None:
    """Documents can be duplicates; they cannot ask the same."""
    builder = FrameBuilder()
    for index, text in enumerate(["one", "two", "one"]):
        origin = Origin("t.txt", index, index + 1)
        builder.add(Seen("t", origin, {}, Text(text, origin)))
    made = builder.build()
    assert told(duplicates(made, "t")) == {"duplicate-row": (1, ["t.txt:3 (as t.txt:1)"])}
    assert conflicts(made, "t") == repeated_answers(made, "t") == []
    assert told(split_twins(made, ["t"])) == {"split-twins": (1, ["t.txt:3 (as t.txt:1)"])}


def test_nothing_is_found_in_nothing() -> None:
    """A frame without rows."""
    made = FrameBuilder().build()
    assert len(made) == 0
    assert [*duplicates(made, "t"), *conflicts(made, "t"), *repeated_answers(made, "t"), *leakage(made, ["t"], ["e"]), *outliers(made, "t"),
            *cut(made, "t", 8), *hardly_trained(made, "t", 4), *split_twins(made, ["t"])] == []


def measured(sizes: list[tuple[int, int]]) -> Frame:
    builder = FrameBuilder()
    for index, (tokens, trained) in enumerate(sizes):
        builder.add(seen("t", index, (str(index), "x")))
        builder.measured(tokens, trained)
    return builder.build()


@given(st.lists(st.integers(0, 50).flatmap(lambda total: st.tuples(st.just(total), st.integers(0, total))), min_size=1, max_size=60),
       st.integers(8, 40), st.integers(0, 10))
def test_cut_and_hardly_trained(sizes: list[tuple[int, int]], cutoff_len: int, fewest: int) -> None:
    """Counted by hand; rows without any trained token are dropped and in the audit, so they are not counted again."""
    made = measured(sizes)
    assert sum(one.count for one in cut(made, "t", cutoff_len)) == sum(tokens > cutoff_len for tokens, _ in sizes)
    assert sum(one.count for one in hardly_trained(made, "t", fewest)) == sum(0 < trained < fewest for _, trained in sizes)


@given(st.lists(st.integers(1, 10_000), min_size=20, max_size=80))
def test_outliers(sizes: list[int]) -> None:
    """Six robust deviations of the logarithm, with medians by sorting."""

    def median(values: list[float]) -> float:
        ordered = sorted(values)
        half = len(ordered) // 2
        return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2

    logs = [math.log(size) for size in sizes]
    middle = median(logs)
    reach = 6 * 1.4826 * max(median([abs(one - middle) for one in logs]), 0.25)
    wanted = {"long-row": sum(one > middle + reach for one in logs), "short-row": sum(one < middle - reach for one in logs)}
    found = {one.check: one.count for one in outliers(measured([(size, 1) for size in sizes]), "t")}
    assert found == {check: count for check, count in wanted.items() if count}


@given(st.lists(st.integers(0, 3000), max_size=100))
def test_spread(values: list[int]) -> None:
    """By sorting: quantile q is number ceil(q n) of the sorted ones."""
    found = Spread.of(np.array(values, np.int64))
    if not values:
        assert found == Spread(0, 0, 0, 0, 0, 0)
        return
    ordered = sorted(values)
    assert found == Spread(len(values), sum(values), ordered[0], ordered[math.ceil(0.5 * len(values)) - 1],
                           ordered[math.ceil(0.95 * len(values) - 1e-9) - 1], ordered[-1])


@given(st.lists(st.one_of(st.integers(0, 40), st.integers(0, 10**6)), max_size=200))
def test_histogram_counts_every_number_once(values: list[int]) -> None:
    """Bin by bin with comparisons; bins are whole, rising, at most 32, and hold everything."""
    found = histogram(np.array(values, np.int64))
    assert sum(found.counts) == len(values) and 1 <= len(found.counts) <= 32
    assert list(found.edges) == sorted(set(found.edges)) and len(found.edges) == len(found.counts) + 1
    assert list(found.counts) == [sum(low <= value < high for value in values)
                                  for low, high in zip(found.edges[:-1], found.edges[1:], strict=True)]


@pytest.mark.parametrize(("values", "edges"), [([1, 2, 3, 4], (1, 2, 3, 4, 5)), ([7, 7], (7, 8))])
def test_histogram_of_few_numbers(values: list[int], edges: tuple[int, ...]) -> None:
    """One bin for each number where they are few."""
    assert histogram(np.array(values)).edges == edges

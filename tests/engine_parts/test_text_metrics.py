"""ROUGE, BLEU and exact match, worked by hand from the definitions."""

from __future__ import annotations

import builtins
import math
from typing import Any

import pytest

from tunewright.engine.metrics import exact_match, exact_mean, mean_of_rows, speed
from tunewright.engine.text_metrics import TextScorer
from tunewright.errors import InputError


@pytest.fixture(scope="module")
def scorer() -> TextScorer:
    return TextScorer()


def f1(precision: float, recall: float) -> float:
    return round(100 * 2 * precision * recall / (precision + recall + 1e-8), 4)


def test_rouge_by_hand(scorer: TextScorer) -> None:
    """jieba keeps spaces as words of their own, which joining and splitting removes. Words: `the cat sat on the mat` against
    `the cat lay on a mat`. Distinct words 5 and 6, common 4 (the cat on mat). Pairs 5 and 5, common 1 (the cat).
    Longest common subsequence `the cat on mat`, 4 of 5 and 6 distinct words."""
    found = scorer.score("the cat sat on the mat", "the cat lay on a mat")
    assert found["rouge-1"] == f1(4 / 5, 4 / 6)
    assert found["rouge-2"] == f1(1 / 5, 1 / 5)
    assert found["rouge-l"] == f1(4 / 6, 4 / 6)


def test_rouge_counts_chinese_words(scorer: TextScorer) -> None:
    """`我 爱 北京 天安门` against `我 爱 上海`: 4 and 3 words, 2 common; pairs 3 and 2, 1 common."""
    found = scorer.score("我爱北京天安门", "我爱上海")
    assert found["rouge-1"] == f1(2 / 4, 2 / 3)
    assert found["rouge-2"] == f1(1 / 3, 1 / 2)
    assert found["rouge-l"] == f1(2 / 4, 2 / 3)


def test_bleu_by_hand(scorer: TextScorer) -> None:
    """Characters `abcdef` against `abcdxy`: n-grams common 4/6, 3/5, 2/4, 1/3; equal length, so no brevity penalty; the mean is
    geometric: (4/6 * 3/5 * 2/4 * 1/3) ^ (1/4)."""
    assert scorer.score("abcdef", "abcdxy")["bleu-4"] == round(100 * (4 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25, 4)


def test_bleu_smoothing_and_brevity(scorer: TextScorer) -> None:
    """`abc` against `abcde`: 3/3, 2/2, 1/1, and no 4-gram, for which method 3 puts 1 / (2^1 * 1); brevity e^(1 - 5/3)."""
    assert scorer.score("abc", "abcde")["bleu-4"] == round(100 * math.exp(1 - 5 / 3) * (1 * 1 * 1 * 0.5) ** 0.25, 4)


@pytest.mark.parametrize(("predicted", "label"), [("", "a b"), ("a b", ""), ("", ""), ("   ", "a"), ("...", "a"), ("a", ". .")])
def test_an_empty_side_scores_zero(scorer: TextScorer, predicted: str, label: str) -> None:
    found = scorer.score(predicted, label)
    assert (found["rouge-1"], found["rouge-2"], found["rouge-l"]) == (0.0, 0.0, 0.0)


def test_equal_texts_score_a_hundred(scorer: TextScorer) -> None:
    found = scorer.score("turn left at the old mill", "turn left at the old mill")
    assert found == {"bleu-4": 100.0, "rouge-1": 100.0, "rouge-2": 100.0, "rouge-l": 100.0}


def test_long_texts_do_not_exhaust_the_stack(scorer: TextScorer) -> None:
    """1,200 words against two, the first of them common."""
    found = scorer.score(" ".join(f"w{number}" for number in range(1200)), "w0 z")
    assert found["rouge-1"] == f1(1 / 1200, 1 / 2)


def test_scores_equal_llamafactorys_recipe(scorer: TextScorer) -> None:
    """Oracle: the recipe of conventions re-stated over the libraries themselves."""
    import jieba
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    from rouge_chinese import Rouge

    predicted, label = "今天天气很好, the sun is out. Let us go!", "今天天气不错, the sun shines. Let us walk!"
    scores = Rouge().get_scores(" ".join(jieba.cut(predicted)), " ".join(jieba.cut(label)))[0]
    expected = {kind: round(value["f"] * 100, 4) for kind, value in scores.items()}
    bleu = sentence_bleu([list(label)], list(predicted), smoothing_function=SmoothingFunction().method3)
    assert scorer.score(predicted, label) == {"bleu-4": round(bleu * 100, 4), **expected}


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_jieba(name: str, *arguments: Any, **settings: Any) -> Any:
        if name == "jieba":
            raise ImportError("No module named 'jieba'", name="jieba")
        return real(name, *arguments, **settings)

    monkeypatch.setattr(builtins, "__import__", without_jieba)
    with pytest.raises(InputError) as caught:
        TextScorer()
    assert caught.value.line() == ("ROUGE and BLEU (predict_with_generate) needs the package `jieba`, which is not installed; "
                                   'run: pip install "tunewright[metrics]"')


@pytest.mark.parametrize(("predicted", "label", "expected"), [
    ('{"a": 1}', '{"a": 1}', 100.0), (" yes\n", "yes", 100.0), ("Yes", "yes", 0.0), ("", "", 100.0)])
def test_exact_match(predicted: str, label: str, expected: float) -> None:
    assert exact_match(predicted, label) == expected


def test_exact_mean_does_not_depend_on_the_order() -> None:
    """1e16 + 1 - 1e16 is 0 or 1 in plain float sums, depending on the order."""
    parts = [(1e16, 1.0), (1.0, 1.0), (-1e16, 0.0)]
    assert exact_mean(parts) == exact_mean(parts[::-1]) == 0.5
    assert math.isnan(exact_mean([]))


def test_speed_and_mean() -> None:
    assert speed("eval", 2.00004, 10, 3) == {
        "eval_runtime": 2.0, "eval_samples_per_second": 5.0, "eval_steps_per_second": 1.5}
    assert mean_of_rows([{"a": 1.0}, {"a": 2.0}]) == {"a": 1.5}
    assert mean_of_rows([]) == {}

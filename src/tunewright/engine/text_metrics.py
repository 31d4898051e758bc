"""ROUGE and BLEU of generated answers, by LLaMA-Factory's definitions. The only importer of jieba, nltk and rouge-chinese.

Per row, times 100 and rounded to 4 places: ROUGE-1/2/L F1 over jieba's words (so that Chinese counts words too), BLEU-4 over
characters with smoothing method 3 (Chen & Cherry 2014). The figures of a set are means over its rows.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunewright.errors import missing_package

EXTRA = "metrics"


class TextScorer:
    """Scores pairs of texts; loads the dictionary of words once."""

    def __init__(self) -> None:
        """Raises InputError, with the install command, if a package is missing."""
        try:
            import jieba
            import nltk.translate.bleu_score as bleu
            import rouge_chinese
        except ImportError as error:
            raise missing_package(error.name or "jieba", feature="ROUGE and BLEU", parameter="predict_with_generate",
                                  extra=EXTRA) from error
        self._words: Any = jieba.Tokenizer()
        # jieba loads its compiled dictionary with marshal from the temporary directory, where anyone may put one; ours is private.
        self._words.tmp_dir = str(_private_cache())
        jieba.setLogLevel("WARNING")
        self._rouge: Any = rouge_chinese.Rouge()
        self._bleu: Any = bleu

    def score(self, predicted: str, label: str) -> dict[str, float]:
        """bleu-4, rouge-1, rouge-2 and rouge-l of one row, each from 0 to 100."""
        return {"bleu-4": self._bleu_4(predicted, label), **self._rouge_f1(predicted, label)}

    def _bleu_4(self, predicted: str, label: str) -> float:
        smoothing = self._bleu.SmoothingFunction().method3
        value = self._bleu.sentence_bleu([list(label)], list(predicted), smoothing_function=smoothing)
        return round(float(value) * 100, 4)

    def _rouge_f1(self, predicted: str, label: str) -> dict[str, float]:
        """0 where a side has no word; the package splits sentences at full stops, so a text of nothing else has none."""
        kinds = ("rouge-1", "rouge-2", "rouge-l")
        hypothesis, reference = (" ".join(self._words.cut(text)) for text in (predicted, label))
        if not hypothesis.replace(".", " ").split() or not reference.replace(".", " ").split():
            return dict.fromkeys(kinds, 0.0)
        with _recursion(len(hypothesis.split()) + len(reference.split())):
            scores = self._rouge.get_scores(hypothesis, reference)[0]
        return {kind: round(scores[kind]["f"] * 100, 4) for kind in kinds}


@contextmanager
def _recursion(depth: int) -> Iterator[None]:
    """Room for rouge-chinese, which walks back along the longest common subsequence recursively, one word a level."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + depth)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _private_cache() -> Path:
    """Our folder for jieba's dictionary, readable by this user only; a new temporary one where home cannot be written."""
    folder = Path.home() / ".cache" / "tunewright" / "jieba"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="tunewright-jieba-"))
    return folder

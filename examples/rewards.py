"""Rewards for the examples of grpo and ppo: each takes lists of equal length and returns a number for each answer."""

from __future__ import annotations

from collections.abc import Sequence


def right(completions: Sequence[str], answer: Sequence[str]) -> list[float]:
    """1 for an answer that holds the word in the row's column `answer`, 0 for another one."""
    return [float(wanted.lower() in text.lower()) for text, wanted in zip(completions, answer, strict=True)]


def brief(completions: Sequence[str]) -> list[float]:
    """1 for a single word, less for each further one, 0 from eleven words on."""
    return [max(0.0, 1.0 - (max(len(text.split()), 1) - 1) / 10) for text in completions]

"""What is kept of a row that is too long: pure arithmetic on places of tokens.

A *pair* is a question with what leads to it, and the answer: tokens begin:answer and answer:end. The pairs of a row cover it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tunewright.data.records import IGNORE_INDEX

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Pair(NamedTuple):
    """Tokens begin:answer of the question, answer:end of the answer."""

    begin: int
    answer: int
    end: int


def pairs_of(labels: Sequence[int] | NDArray[np.int32]) -> list[Pair]:
    """The pairs of a row, of whose labels every answer has one at each of its tokens; what follows the last answer belongs to it.

    A row without an answer is one question.
    """
    answers = np.asarray(labels) != IGNORE_INDEX
    borders = np.flatnonzero(np.diff(answers, prepend=False, append=False)).tolist()
    begins, ends = borders[::2], [*borders[1::2][:-1], len(answers)]
    if not begins:
        return [Pair(0, len(answers), len(answers))]
    return [Pair(*each) for each in zip([0, *ends[:-1]], begins, ends, strict=True)]


def shares(source: int, target: int, budget: int) -> tuple[int, int]:
    """How many tokens of a question and of its answer are kept, of `budget` for both: LLaMA-Factory's rule.

    An answer of less than half the budget is kept and the question cut; else a question of less than half is kept and the answer cut;
    else both are, in proportion to their lengths. What fits is not cut.
    """
    if 2 * target < budget:
        most = budget
    elif 2 * source < budget:
        most = budget - source
    else:
        most = budget * target // (source + target)
    kept = min(most, target)
    return min(max(budget - kept, 0), source), kept


def in_proportion(pairs: Iterable[Pair], cutoff_len: int) -> list[slice]:
    """The tokens that are kept of each pair, in the order of the row: pairs are served as they come, by `shares` of what is left, always
    from their beginnings, until nothing is left."""
    kept: list[slice] = []
    left = cutoff_len
    for pair in pairs:
        if left <= 0:
            break
        source, target = shares(pair.answer - pair.begin, pair.end - pair.answer, left)
        kept += [slice(pair.begin, pair.begin + source), slice(pair.answer, pair.answer + target)]
        left -= source + target
    return sorted((one for one in kept if one.start < one.stop), key=lambda one: one.start)


def together(pairs: Sequence[Pair], cutoff_len: int) -> list[slice]:
    """The pairs as stretches of the row: as many in each as fit, at least one."""
    found: list[slice] = []
    for pair in pairs:
        if found and pair.end - found[-1].start <= cutoff_len:
            found[-1] = slice(found[-1].start, pair.end)
        else:
            found.append(slice(pair.begin, pair.end))
    return found


def most_that_fit(number: int, fits: Callable[[int], bool]) -> int:
    """The largest count from 1 to `number` that fits, where fewer fit if more do; 1 if none does. Asks about log2(number) times."""
    least, beyond = 1, number + 1
    while beyond - least > 1:
        middle = (least + beyond) // 2
        if fits(middle):
            least = middle
        else:
            beyond = middle
    return least


def answer_parts(prompt: int, answer: int, cutoff_len: int, policy: str) -> tuple[slice, slice] | None:
    """What is kept of a prompt, and of every answer to it, the longest of which has `answer` tokens; None where nothing can be.

    All answers keep the same prompt. `cut_right` keeps it whole and cuts answers at their ends; `cut_left` keeps them whole, and of the
    prompt the end, at least one token; `proportional` cuts both from their ends by `shares`.
    """
    if prompt + answer <= cutoff_len:
        return slice(0, prompt), slice(0, answer)
    if policy == "cut_right":
        return (slice(0, prompt), slice(0, cutoff_len - prompt)) if prompt < cutoff_len else None
    if policy == "cut_left":
        return (slice(prompt - (cutoff_len - answer), prompt), slice(0, answer)) if answer < cutoff_len else None
    if policy == "proportional":
        source, target = shares(prompt, answer, cutoff_len)
        return (slice(0, source), slice(0, target)) if source and target else None
    return None

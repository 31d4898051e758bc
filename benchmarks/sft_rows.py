"""Rows of instruction data as token ids and labels, made from text on disk: what every side of `training.py` trains on.

A row is a system prompt and a question in ChatML that are not trained and an answer that is; the text is prose and code (see prose.py),
and the system prompt, as in data that one template has rendered, is the same in all rows. Three kinds:
`long-tailed`, whose lengths are spread as those of public instruction data are (mean 191 tokens, of which 40 % carry a label; batches
of random rows are padding to 37 to 47 %), `uniform`, of which all rows have 192 tokens, and `packed`: long-tailed rows that are to be
packed, a sequence to a step. The same arguments give the same rows.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
from prose import library_words

from tunewright.data.packing import pack

IGNORED: Final = -100
KINDS: Final = ("long-tailed", "uniform", "packed")
EFFICIENCY: Final = (0.53, 0.63)
"""Part of a batch of random long-tailed rows that is not padding: what was measured on public instruction data in batches of 8 and 4."""

_QUESTION: Final = (83.0, 0.7)
"""Tokens of a question's text: mean, and spread of the logarithm."""
_ANSWER: Final = (76.0, 1.0)
_FRAME: Final = 32
"""Tokens of the template around a question; what its marks leave of them is the system prompt."""
_SHORTEST_ANSWER: Final = 7
_UNIFORM: Final = (192, 76)
_ROOM: Final = 256
"""Tokens of a packed sequence for each row that a batch would have: a third more than rows have on average."""
_WORDS_PER_TOKEN: Final = 1.5
"""Words taken for each token that is wanted: more than any tokenizer needs."""


class Sizes(NamedTuple):
    """Tokens of a row, and how many of them, at its end, carry a label."""

    tokens: int
    trained: int


class Row(NamedTuple):
    """A row to train on."""

    input_ids: list[int]
    labels: list[int]


class Workload(NamedTuple):
    """What is known of the rows of a run. `counted` is over the batches behind the warm-up, which are the ones that are timed."""

    kind: str
    rows: int
    batch: int
    mean_tokens: float
    longest: int
    counted_tokens: int
    counted_trained: int
    counted_padded: int

    @property
    def efficiency(self) -> float:
        """Part of the padded batches that is no padding."""
        return self.counted_tokens / self.counted_padded


def write_sft(path: Path, kind: str, tokenizer: Path, batches: tuple[int, int, int]) -> Workload:
    """Write the rows of `batches` = (steps, steps of them that warm up, rows of one) to `path` (.jsonl); what they are like."""
    steps, warm, batch = batches
    sizes = _drawn(kind, steps, warm, batch)
    with path.open("w", encoding="utf-8") as file:
        for row in _rows(sizes, tokenizer):
            file.write(json.dumps(row._asdict()) + "\n")
    if kind == "packed":
        counted = [sizes[row] for rows in _packs(sizes, capacity(batch))[warm:] for row in rows]
        padded = (steps - warm) * capacity(batch)
    else:
        counted = sizes[warm * batch :]
        padded = _padded(counted, batch)
    return Workload(
        kind, len(sizes), batch, sum(size.tokens for size in sizes) / len(sizes), max(size.tokens for size in sizes),
        sum(size.tokens for size in counted), sum(size.trained for size in counted), padded)


def capacity(batch: int) -> int:
    """Tokens that a packed sequence has room for, where a batch would have `batch` rows."""
    return _ROOM * batch


def packs_of(path: Path, batch: int) -> list[list[int]]:
    """Numbers of the rows of each packed sequence, one a step: what tunewright's `packing` makes of the file."""
    return pack([len(row.input_ids) for row in read_sft(path)], capacity(batch))


def read_sft(path: Path) -> list[Row]:
    """The rows of such a file."""
    return [Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _drawn(kind: str, steps: int, warm: int, batch: int) -> list[Sizes]:
    """Sizes of all rows in the order of training.

    Few rows drawn at random would be anything but typical. So the lengths are the quantiles of their distribution, and their order is
    the first one, of all orders by seed, that pads as much as random batches do on average.
    """
    if kind == "uniform":
        return [Sizes(*_UNIFORM)] * (steps * batch)
    if kind == "packed":
        return _for_packing(steps, batch)
    for seed in range(10_000):
        sizes = _long_tailed(steps * batch, random.Random(seed))
        counted = sizes[warm * batch :]
        if EFFICIENCY[0] <= sum(size.tokens for size in counted) / _padded(counted, batch) <= EFFICIENCY[1]:
            return sizes
    raise SystemExit(f"error: no order of {steps * batch} rows pads batches of {batch} as random rows do; take batches of 4 or 8")


def _for_packing(steps: int, batch: int) -> list[Sizes]:
    """A row more for each step than a batch has, which fill as many sequences as there are steps."""
    for seed in range(100):
        sizes = _long_tailed(steps * (batch + 1), random.Random(seed))
        if max(size.tokens for size in sizes) <= capacity(batch) and len(_packs(sizes, capacity(batch))) == steps:
            return sizes
    raise SystemExit(f"error: rows for {steps} steps do not fill as many sequences of {capacity(batch)} tokens; take batches of 4 or 8")


def _packs(sizes: list[Sizes], room: int) -> list[list[int]]:
    return pack([size.tokens for size in sizes], room)


def _long_tailed(count: int, draw: random.Random) -> list[Sizes]:
    questions, answers = (_quantiles(count, *of) for of in (_QUESTION, _ANSWER))
    draw.shuffle(questions)
    draw.shuffle(answers)
    return [Sizes(_FRAME + question + max(_SHORTEST_ANSWER, answer), max(_SHORTEST_ANSWER, answer))
            for question, answer in zip(questions, answers, strict=True)]


def _quantiles(count: int, mean: float, spread: float) -> list[int]:
    """The middles of `count` parts of a log-normal distribution that are equally likely."""
    centre = math.log(mean) - spread**2 / 2
    return [max(1, round(math.exp(centre + spread * NormalDist().inv_cdf((number + 0.5) / count)))) for number in range(count)]


def _padded(sizes: list[Sizes], batch: int) -> int:
    """Positions of batches that are padded to their longest row."""
    return sum(batch * max(size.tokens for size in sizes[first : first + batch]) for first in range(0, len(sizes), batch))


def _rows(sizes: list[Sizes], tokenizer: Path) -> Iterator[Row]:
    """Rows of those sizes, each of a stretch of text of its own."""
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    words, draw = library_words(), random.Random(len(sizes))

    def ids(text: str) -> list[int]:
        found: list[int] = encoder.encode(text, add_special_tokens=False).ids
        return found

    def text(count: int) -> list[int]:
        length = 8 + round(count * _WORDS_PER_TOKEN)
        first = draw.randrange(len(words) - length)
        found = ids("".join(words[first : first + length]))[:count]
        return found + found[:1] * (count - len(found))

    user, assistant, end = ids("<|im_end|>\n<|im_start|>user\n"), ids("<|im_end|>\n<|im_start|>assistant\n"), ids("<|im_end|>")
    system = ids("<|im_start|>system\n")
    system += text(max(1, _FRAME - len(system) - len(user) - len(assistant)))
    frame = len(system) + len(user) + len(assistant)
    for size in sizes:
        asked = size.tokens - size.trained
        prompt = [*system, *user, *text(max(1, asked - frame)), *assistant][:asked]
        answer = [*text(size.trained - len(end)), *end]
        yield Row(prompt + answer, [IGNORED] * len(prompt) + answer)

"""Pairs of answers to tensors, in three layouts that hold the same answers: after one shared prompt, end to end, or padded.

An example is two segments, prompt + chosen and prompt + rejected. What is trained is in `Batch.sequences`, and no label is set:
the next-token loss of a batch would train both answers alike. Axes: P pairs, S positions of the longest row, T of all rows together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from tunewright.data.collate import Batch, Example
from tunewright.data.records import IGNORE_INDEX
from tunewright.data.sequences import Answer, Sequences, answer_after_prefix, answer_at

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Row(NamedTuple):
    """One answer with its prompt: input_ids and labels [length]."""

    input_ids: NDArray[np.int32]
    labels: NDArray[np.int32]


def rows_of(example: Example) -> list[Row]:
    """The segments of an example."""
    bounds = example.bounds.tolist()
    return [Row(example.input_ids[begin:end], example.labels[begin:end]) for begin, end in pairwise(bounds)]


def prompt_size(row: Row) -> int:
    """Tokens before the answer."""
    return int(np.argmax(row.labels != IGNORE_INDEX))


def shared_prefix(chosen: Row, rejected: Row) -> int:
    """How many tokens both rows begin with, up to where the first of the two answers begins."""
    size = min(len(chosen.input_ids), len(rejected.input_ids))
    differs = np.flatnonzero(chosen.input_ids[:size] != rejected.input_ids[:size])
    return min(int(differs[0]) if len(differs) else size, prompt_size(chosen), prompt_size(rejected))


def collate_pairs_shared(examples: Sequence[Example]) -> Batch:
    """Each prompt once: [1, T], segment 2i is prompt + chosen of pair i, segment 2i + 1 what rejected adds to it.

    The positions of segment 2i + 1 go on from its prefix, which `Batch.prefixes` counts: it attends to that part of segment 2i and to
    itself. The prefix is what both rows begin with, at most the prompt.
    """
    layout = _Layout()
    for example in examples:
        chosen, rejected = rows_of(example)
        layout.add_group((chosen, rejected), shared_prefix(chosen, rejected))
    return layout.batch(examples)


def collate_pairs_flat(examples: Sequence[Example]) -> Batch:
    """All rows end to end: [1, T] with 2P segments, each by itself."""
    return rows_flat([row for example in examples for row in rows_of(example)], examples)


def collate_pairs_padded(examples: Sequence[Example], pad_token_id: int) -> Batch:
    """Every row by itself, padded on the right: [2P, S]."""
    return rows_padded([row for example in examples for row in rows_of(example)], examples, pad_token_id)


def rows_flat(rows: Sequence[Row], examples: Sequence[Example]) -> Batch:
    """Rows laid end to end, one sequence each."""
    layout = _Layout()
    for row in rows:
        layout.add(row)
    return layout.batch(examples)


def rows_shared(groups: Sequence[tuple[Sequence[Row], int]]) -> Batch:
    """Rows of each group laid end to end, each but its first without the tokens, as many as the group says, that all of them begin with."""
    layout = _Layout()
    for rows, prefix in groups:
        layout.add_group(rows, prefix)
    return layout.batch(())


def rows_padded(rows: Sequence[Row], examples: Sequence[Example], pad_token_id: int) -> Batch:
    """Rows padded on the right to the longest, one sequence each."""
    longest = max(len(row.input_ids) for row in rows)
    input_ids = torch.full((len(rows), longest), pad_token_id, dtype=torch.int64)
    attention_mask = torch.zeros((len(rows), longest), dtype=torch.int64)
    for number, row in enumerate(rows):
        input_ids[number, : len(row.input_ids)] = torch.from_numpy(row.input_ids.astype(np.int64))
        attention_mask[number, : len(row.input_ids)] = 1
    return Batch(
        input_ids=input_ids,
        targets=torch.full_like(input_ids, IGNORE_INDEX),
        position_ids=torch.arange(longest).repeat(len(rows), 1),
        attention_mask=attention_mask,
        bounds=None,
        sample_ids=tuple(example.sample_id for example in examples),
        sequences=Sequences.of([answer_at(row.labels, number * longest) for number, row in enumerate(rows)]),
    )


class _Layout:
    """Segments laid end to end."""

    def __init__(self) -> None:
        self._ids: list[NDArray[np.int32]] = []
        self._positions: list[NDArray[np.int64]] = []
        self._answers: list[Answer] = []
        self._prefixes: list[int] = []
        self._bounds = [0]

    def add(self, row: Row) -> None:
        """A whole row."""
        self._answers.append(answer_at(row.labels, self._bounds[-1]))
        self._segment(row, 0)

    def add_group(self, rows: Sequence[Row], prefix: int) -> None:
        """A row, and what others add to its first `prefix` tokens."""
        begin = self._bounds[-1]
        self.add(rows[0])
        for row in rows[1:]:
            self._answers.append(answer_after_prefix(row.labels, prefix, begin, self._bounds[-1]))
            self._segment(row, prefix)

    def _segment(self, row: Row, prefix: int) -> None:
        self._ids.append(row.input_ids[prefix:])
        self._positions.append(np.arange(prefix, len(row.input_ids)))
        self._prefixes.append(prefix)
        self._bounds.append(self._bounds[-1] + len(row.input_ids) - prefix)

    def batch(self, examples: Sequence[Example]) -> Batch:
        """The batch, in which a prefix counts only where there is one."""
        input_ids = torch.from_numpy(np.concatenate(self._ids).astype(np.int64)).unsqueeze(0)
        return Batch(
            input_ids=input_ids,
            targets=torch.full_like(input_ids, IGNORE_INDEX),
            position_ids=torch.from_numpy(np.concatenate(self._positions).astype(np.int64)).unsqueeze(0),
            attention_mask=None,
            bounds=torch.tensor(self._bounds, dtype=torch.int32),
            sample_ids=tuple(example.sample_id for example in examples),
            sequences=Sequences.of(self._answers),
            prefixes=torch.tensor(self._prefixes, dtype=torch.int32) if any(self._prefixes) else None,
        )

"""Feedback to tensors: the rows, and behind them their prompts with the answers of other rows, from which KTO estimates a divergence.

Source: Ethayarajh et al. 2024, "KTO: Model Alignment as Prospect Theoretic Optimization", section 4.1: the KL term is taken at
mismatched pairs (x_i, y_{i+1}). Axes: R rows, S positions of the longest row, T of all rows together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tunewright.data.collate import Batch, Example
from tunewright.data.collate_pairs import Row, prompt_size, rows_flat, rows_of, rows_padded
from tunewright.data.records import IGNORE_INDEX

Mismatched = Callable[[Sequence[Example], Sequence[Example]], Batch]
"""Rows, and for each of them the row whose answer its prompt is given, to a batch."""


@dataclass(frozen=True, slots=True)
class WithPartners:
    """A collator that wants to know which row follows each of its rows in the order of the optimizer step."""

    of: Mismatched

    def __call__(self, examples: Sequence[Example]) -> Batch:
        """A batch by itself: the last row is followed by the first."""
        return self.of(examples, [*examples[1:], examples[0]])


def mismatched(example: Example, partner: Example, cutoff_len: int) -> Row:
    """The prompt of `example` with the answer of `partner`, cut at its end to `cutoff_len` tokens."""
    own, other = rows_of(example)[0], rows_of(partner)[0]
    size, begin = prompt_size(own), prompt_size(other)
    ids = np.concatenate([own.input_ids[:size], other.input_ids[begin:]])
    labels = np.concatenate([np.full(size, IGNORE_INDEX, np.int32), other.labels[begin:]])
    return Row(ids[:cutoff_len], labels[:cutoff_len])


def collate_feedback_flat(examples: Sequence[Example], partners: Sequence[Example], cutoff_len: int) -> Batch:
    """[1, T] with 2R segments: the rows, then their mismatched ones, in the same order; `marks` [R]."""
    return _marked(rows_flat(_rows(examples, partners, cutoff_len), examples), examples)


def collate_feedback_padded(examples: Sequence[Example], partners: Sequence[Example], cutoff_len: int, pad_token_id: int) -> Batch:
    """[2R, S]: the same rows, padded on the right."""
    return _marked(rows_padded(_rows(examples, partners, cutoff_len), examples, pad_token_id), examples)


def _rows(examples: Sequence[Example], partners: Sequence[Example], cutoff_len: int) -> list[Row]:
    both = zip(examples, partners, strict=True)
    return [*(rows_of(example)[0] for example in examples), *(mismatched(example, partner, cutoff_len) for example, partner in both)]


def _marked(batch: Batch, examples: Sequence[Example]) -> Batch:
    return replace(batch, marks=torch.tensor([example.mark for example in examples], dtype=torch.int8))

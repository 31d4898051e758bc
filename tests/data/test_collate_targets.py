"""What each position of a batch is to predict. Oracle: written by hand."""

from __future__ import annotations

import numpy as np

from tunewright.data.collate import Example, collate_flat, collate_padded
from tunewright.data.records import IGNORE_INDEX


def row(*labels: int) -> Example:
    return Example(np.arange(len(labels), dtype=np.int32), np.array(labels, np.int32), np.array([0, len(labels)], np.int32), 0)


def test_targets_are_the_labels_one_to_the_right() -> None:
    """The last position of a row has nothing to predict."""
    rows = [row(IGNORE_INDEX, 5, 6, IGNORE_INDEX), row(IGNORE_INDEX, IGNORE_INDEX, 7, 8)]
    assert collate_padded(rows, 0).targets.tolist() == [[5, 6, IGNORE_INDEX, IGNORE_INDEX], [IGNORE_INDEX, 7, 8, IGNORE_INDEX]]
    assert collate_flat(rows).targets.tolist() == [[5, 6, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX, 7, 8, IGNORE_INDEX]]


def test_the_end_of_a_row_predicts_padding_where_that_trains() -> None:
    rows = [row(IGNORE_INDEX, 5), row(IGNORE_INDEX, 6, 7, 8)]
    assert collate_padded(rows, 3, pad_label=3).targets.tolist() == [[5, 3, 3, IGNORE_INDEX], [6, 7, 8, IGNORE_INDEX]]

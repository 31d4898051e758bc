"""Prompts to tensors for generation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tunewright.data.collate import Batch, Example
from tunewright.data.records import IGNORE_INDEX


def collate_prompts_left(examples: Sequence[Example], pad_token_id: int) -> Batch:
    """[B, S], padded on the left, so that every prompt ends where its answer begins.

    Positions count the tokens of a prompt from 0 on; padding has position 0, which nothing attends to. No label is set.
    """
    longest = max(len(example.input_ids) for example in examples)
    input_ids = torch.full((len(examples), longest), pad_token_id, dtype=torch.int64)
    attention_mask = torch.zeros_like(input_ids)
    position_ids = torch.zeros_like(input_ids)
    for row, example in enumerate(examples):
        begin = longest - len(example.input_ids)
        input_ids[row, begin:] = torch.from_numpy(example.input_ids.astype(np.int64))
        attention_mask[row, begin:] = 1
        position_ids[row, begin:] = torch.arange(longest - begin)
    return Batch(
        input_ids=input_ids, targets=torch.full_like(input_ids, IGNORE_INDEX), position_ids=position_ids, attention_mask=attention_mask,
        bounds=None, sample_ids=tuple(example.sample_id for example in examples))

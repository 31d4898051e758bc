"""Prompts with the answers that were just made to them, to tensors: after one shared prompt, end to end, or padded.

What is trained is in `Batch.sequences`, one sequence for each answer, group by group; no label is set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from tunewright.data.collate import Batch
from tunewright.data.collate_pairs import Row, rows_flat, rows_padded, rows_shared
from tunewright.data.records import IGNORE_INDEX
from tunewright.data.sequences import Sequences


class Group(NamedTuple):
    """A prompt, by its sample's number, and answers to it: token ids. Each answer has a token at least."""

    sample_id: int
    prompt: Sequence[int]
    answers: Sequence[Sequence[int]]


CollateGroups = Callable[[Sequence[Group]], Batch]


def collate_groups_shared(groups: Sequence[Group]) -> Batch:
    """Each prompt once: [1, T]; the first segment of a group is prompt and first answer, each other one a further answer, whose prefix
    is the prompt."""
    return _numbered(rows_shared([(_rows(group), len(group.prompt)) for group in groups]), groups)


def collate_groups_flat(groups: Sequence[Group]) -> Batch:
    """All rows end to end, each with its prompt: [1, T]."""
    return _numbered(rows_flat([row for group in groups for row in _rows(group)], ()), groups)


def collate_groups_padded(groups: Sequence[Group], pad_token_id: int) -> Batch:
    """Every row by itself, with its prompt, padded on the right: [answers, S]."""
    return _numbered(rows_padded([row for group in groups for row in _rows(group)], (), pad_token_id), groups)


def without_answers(batch: Batch, collate: CollateGroups) -> Batch:
    """What a rank trains that has no prompt in this micro-batch: the tokens of `batch`, whose sample does not count, and no sequence."""
    ids = batch.input_ids[0].tolist()
    return replace(collate([Group(-1, ids, [ids[-1:]])]), sequences=Sequences.none(), sample_ids=()).to(batch.input_ids.device)


def prompts_of(batch: Batch) -> list[list[int]]:
    """The token ids of each prompt of a batch that is padded on the left; none of a batch that stands in for rows there are not."""
    mask = batch.attention_mask if batch.attention_mask is not None else torch.ones_like(batch.input_ids)
    rows = zip(batch.input_ids.cpu(), mask.cpu().bool(), strict=True)
    return [row[kept].tolist() for row, kept in rows] if batch.sample_ids else []


def _rows(group: Group) -> list[Row]:
    prompt = np.asarray(group.prompt, np.int32)
    unlabelled = np.full(len(prompt), IGNORE_INDEX, np.int32)
    answers = [np.asarray(answer, np.int32) for answer in group.answers]
    return [Row(np.concatenate([prompt, answer]), np.concatenate([unlabelled, answer])) for answer in answers]


def _numbered(batch: Batch, groups: Sequence[Group]) -> Batch:
    return replace(batch, sample_ids=tuple(group.sample_id for group in groups))

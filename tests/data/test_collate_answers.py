"""Pairs, marked answers and prompts as batches. Oracles: tensors written out by hand; what each token sees, restated layout by layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunewright.data.collate import Batch, Example, collate_flat, without_labels
from tunewright.data.collate_feedback import WithPartners, collate_feedback_flat, collate_feedback_padded
from tunewright.data.collate_pairs import collate_pairs_flat, collate_pairs_padded, collate_pairs_shared
from tunewright.data.collate_prompts import collate_prompts_left
from tunewright.data.sequences import Sequences

PAD = 0
Row = tuple[list[int], list[int]]
"""Prompt and answer."""


def example(*rows: Row, number: int = 0, mark: int = 0) -> Example:
    """An example of rows whose answers are trained."""
    ids = [token for prompt, answer in rows for token in (*prompt, *answer)]
    labels = [token for prompt, answer in rows for token in (*[-100] * len(prompt), *answer)]
    bounds = np.cumsum([0, *(len(prompt) + len(answer) for prompt, answer in rows)])
    return Example(np.array(ids, np.int32), np.array(labels, np.int32), bounds.astype(np.int32), number, mark)


PAIRS = [example(([11, 12, 13], [14, 15]), ([11, 12, 13], [14, 16, 17]), number=5), example(([21], [22]), ([21], [23, 24]), number=9)]


def listed(found: Sequences | None) -> dict[str, Any]:
    assert found is not None
    return {"positions": found.positions.tolist(), "targets": found.targets.tolist(), "owners": found.owners.tolist(), "count": found.count}


TARGETS = {"targets": [14, 15, 14, 16, 17, 22, 23, 24], "owners": [0, 0, 1, 1, 1, 2, 3, 3], "count": 4}


def test_pairs_behind_one_prompt() -> None:
    """The rejected answers follow without their prompt, of which they have the positions; 14 is of both answers and stands twice."""
    batch = collate_pairs_shared(PAIRS)
    #                                  0   1   2   3   4 | 5   6   7 | 8   9 | 10  11
    assert batch.input_ids.tolist() == [[11, 12, 13, 14, 15, 14, 16, 17, 21, 22, 23, 24]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5, 0, 1, 1, 2]]
    assert batch.bounds is not None and batch.bounds.tolist() == [0, 5, 8, 10, 12] and batch.bounds.dtype == torch.int32
    assert batch.prefixes is not None and batch.prefixes.tolist() == [0, 3, 0, 1] and batch.prefixes.dtype == torch.int32
    assert listed(batch.sequences) == {"positions": [2, 3, 2, 5, 6, 8, 8, 10], **TARGETS}
    assert (batch.targets == -100).all() and batch.targets.shape == (1, 12)
    assert batch.attention_mask is None and batch.sample_ids == (5, 9) and batch.num_tokens == 16


def test_pairs_end_to_end() -> None:
    batch = collate_pairs_flat(PAIRS)
    assert batch.input_ids.tolist() == [[11, 12, 13, 14, 15, 11, 12, 13, 14, 16, 17, 21, 22, 21, 23, 24]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 0, 1, 0, 1, 2]]
    assert batch.bounds is not None and batch.bounds.tolist() == [0, 5, 11, 13, 16] and batch.prefixes is None
    assert listed(batch.sequences) == {"positions": [2, 3, 7, 8, 9, 11, 13, 14], **TARGETS}


def test_padded_pairs() -> None:
    batch = collate_pairs_padded(PAIRS, PAD)
    assert batch.input_ids.tolist() == [[11, 12, 13, 14, 15, 0], [11, 12, 13, 14, 16, 17], [21, 22, 0, 0, 0, 0], [21, 23, 24, 0, 0, 0]]
    assert batch.attention_mask is not None
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1, 0], [1] * 6, [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]]
    assert batch.bounds is None and batch.prefixes is None and batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 5]] * 4
    assert listed(batch.sequences) == {"positions": [2, 3, 8, 9, 10, 12, 18, 19], **TARGETS}


@pytest.mark.parametrize(("chosen", "rejected", "prefix"), [
    (([1, 2, 3], [4]), ([1, 2, 3], [5]), 3),
    (([1, 2, 3], [4]), ([1, 9, 3], [5]), 1),
    (([9, 2], [4]), ([1, 2], [5]), 0),
    (([1, 2, 3], [4]), ([1, 2], [3, 5]), 2),
    (([1, 2], [3, 4]), ([1, 2, 3], [5]), 2),
    (([1], [2, 3]), ([1], [2]), 1)])
def test_a_prefix_ends_where_rows_differ_or_an_answer_begins(chosen: Row, rejected: Row, prefix: int) -> None:
    batch = collate_pairs_shared([example(chosen, rejected)])
    assert (batch.prefixes is None) == (prefix == 0)
    assert batch.prefixes is None or batch.prefixes.tolist() == [0, prefix]
    assert seen(batch) == whole([example(chosen, rejected)])


def whole(examples: list[Example]) -> list[tuple[int, int, list[tuple[int, int]]]]:
    """Of each answer token: its sequence, itself, and what comes before it, as (position, token)."""
    found = []
    for number, one in enumerate(examples):
        for answer in range(len(one.bounds) - 1):
            part = slice(*one.bounds[answer : answer + 2])
            ids, labels = one.input_ids[part].tolist(), one.labels[part].tolist()
            owner = (len(one.bounds) - 1) * number + answer
            found += [(owner, token, list(enumerate(ids[:place]))) for place, token in enumerate(labels) if token != -100]
    return found


def seen(batch: Batch) -> list[tuple[int, int, list[tuple[int, int]]]]:
    """The same by the rules of the layouts: a place sees its row as far as it is not padding, or its segment up to itself, and of the
    segment before it the first so many tokens."""
    assert batch.sequences is not None
    found = []
    ids, positions = batch.input_ids.reshape(-1), batch.position_ids.reshape(-1)
    for at, target, owner in zip(*(one.tolist() for one in (batch.sequences.positions, batch.sequences.targets, batch.sequences.owners)),
                                 strict=True):
        if batch.bounds is None:
            assert batch.attention_mask is not None
            width = batch.input_ids.shape[1]
            places = [place for place in range(at // width * width, at + 1) if batch.attention_mask.reshape(-1)[place]]
        else:
            segment = int(np.searchsorted(batch.bounds.numpy(), at, side="right")) - 1
            # The first token of a continuation is predicted from the end of the prefix, which lies in the segment before.
            prefix = 0 if batch.prefixes is None else int(batch.prefixes[segment])
            before = int(batch.bounds[segment - 1]) if prefix else 0
            places = [*range(before, before + prefix), *range(int(batch.bounds[segment]), at + 1)]
        found.append((owner, target, [(int(positions[place]), int(ids[place])) for place in places]))
    return found


TOKENS = st.lists(st.integers(1, 3), min_size=1, max_size=5)


@st.composite
def pairs(draw: st.DrawFn) -> list[Example]:
    """Pairs of few words, so that prompts and answers often begin alike; some with a prompt of their own for each answer."""
    found = []
    for number in range(draw(st.integers(1, 4))):
        prompt = draw(TOKENS)
        other = draw(st.one_of(st.just(prompt), TOKENS))
        found.append(example((prompt, draw(TOKENS)), (other, draw(TOKENS)), number=number))
    return found


@given(pairs())
def test_every_layout_shows_an_answer_the_same(examples: list[Example]) -> None:
    """Who predicts which token, for whom, from what at which positions; the shared layout needs no more tokens than the others."""
    shared, flat, padded = collate_pairs_shared(examples), collate_pairs_flat(examples), collate_pairs_padded(examples, PAD)
    assert seen(shared) == seen(flat) == seen(padded) == whole(examples)
    assert shared.num_tokens == flat.num_tokens == padded.num_tokens
    for batch in (shared, flat, padded):
        assert batch.sequences is not None and batch.sequences.count == 2 * len(examples)
        assert batch.sequences.owners.tolist() == sorted(batch.sequences.owners.tolist())


def test_multi_turn_answers_skip_what_is_not_trained() -> None:
    """A tool's result in the chosen answer is seen and not predicted; the token behind it is predicted from its last one."""
    one = example(([1, 2], [3, 4, 5, 6]), ([1, 2], [7]))
    one.labels[3:5] = -100
    for collate in (collate_pairs_shared, collate_pairs_flat, partial(collate_pairs_padded, pad_token_id=PAD)):
        batch = collate([one])
        assert listed(batch.sequences)["targets"] == [3, 6, 7] and seen(batch) == whole([one])
    assert listed(collate_pairs_shared([one]).sequences)["positions"] == [1, 4, 1]


ROWS = [example(([11, 12], [13]), number=3, mark=1), example(([21], [22, 23]), number=1, mark=-1), example(([31], [32]), number=8, mark=1)]


def test_feedback_end_to_end() -> None:
    """Rows, then each prompt with the answer of the partner, in the order of the rows."""
    batch = collate_feedback_flat(ROWS, [*ROWS[1:], ROWS[0]], 100)
    assert batch.input_ids.tolist() == [[11, 12, 13, 21, 22, 23, 31, 32, 11, 12, 22, 23, 21, 32, 31, 13]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 2, 0, 1, 0, 1, 2, 3, 0, 1, 0, 1]]
    assert batch.bounds is not None and batch.bounds.tolist() == [0, 3, 6, 8, 12, 14, 16]
    assert listed(batch.sequences) == {"positions": [1, 3, 4, 6, 9, 10, 12, 14], "targets": [13, 22, 23, 32, 22, 23, 32, 13],
                                       "owners": [0, 1, 1, 2, 3, 3, 4, 5], "count": 6}
    assert batch.marks is not None and batch.marks.tolist() == [1, -1, 1] and batch.marks.dtype == torch.int8
    assert batch.sample_ids == (3, 1, 8) and (batch.targets == -100).all()


def test_padded_feedback() -> None:
    batch = collate_feedback_padded(ROWS, [*ROWS[1:], ROWS[0]], 100, PAD)
    assert batch.input_ids.tolist() == [[11, 12, 13, 0], [21, 22, 23, 0], [31, 32, 0, 0], [11, 12, 22, 23], [21, 32, 0, 0], [31, 13, 0, 0]]
    assert listed(batch.sequences)["positions"] == [1, 4, 5, 8, 13, 14, 16, 20]
    assert listed(batch.sequences)["targets"] == [13, 22, 23, 32, 22, 23, 32, 13]
    assert batch.marks is not None and batch.marks.tolist() == [1, -1, 1]


def test_a_mismatched_row_is_cut_at_its_end() -> None:
    """A prompt of two and an answer of two in three tokens."""
    batch = collate_feedback_flat(ROWS[:1], ROWS[1:2], 3)
    assert batch.input_ids.tolist() == [[11, 12, 13, 11, 12, 22]]
    assert listed(batch.sequences)["targets"] == [13, 22]


def test_by_itself_a_batch_takes_its_own_rows_for_partners() -> None:
    alone = WithPartners(partial(collate_feedback_flat, cutoff_len=100))
    assert alone(ROWS).input_ids.tolist() == collate_feedback_flat(ROWS, [*ROWS[1:], ROWS[0]], 100).input_ids.tolist()


def test_prompts_end_together() -> None:
    """Left-padded; transformers counts positions of such a batch as we do: the tokens before, without padding."""
    examples = [example(([11, 12, 13], []), number=4), example(([21], []), number=2)]
    batch = collate_prompts_left(examples, PAD)
    assert batch.input_ids.tolist() == [[11, 12, 13], [0, 0, 21]] and batch.sample_ids == (4, 2)
    assert batch.attention_mask is not None and batch.attention_mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert batch.position_ids.tolist() == [[0, 1, 2], [0, 0, 0]] and (batch.targets == -100).all()
    assert torch.equal(batch.position_ids, (batch.attention_mask.cumsum(1) - 1).clamp(min=0))
    assert batch.bounds is None and batch.sequences is None


COLLATORS: dict[str, Callable[[], Batch]] = {
    "shared": lambda: collate_pairs_shared(PAIRS), "flat": lambda: collate_pairs_flat(PAIRS),
    "padded": lambda: collate_pairs_padded(PAIRS, PAD), "feedback": lambda: collate_feedback_flat(ROWS, ROWS, 100),
    "padded feedback": lambda: collate_feedback_padded(ROWS, ROWS, 100, PAD), "prompts": lambda: collate_prompts_left(ROWS, PAD),
    "sft": lambda: collate_flat(PAIRS)}


@pytest.mark.parametrize("name", COLLATORS)
def test_a_rank_without_rows_has_the_same_tokens_and_no_answer(name: str) -> None:
    batch = COLLATORS[name]()
    empty = without_labels(batch)
    assert torch.equal(empty.input_ids, batch.input_ids) and (empty.targets == -100).all() and empty.sample_ids == ()
    assert (empty.sequences is None) == (batch.sequences is None) and (empty.marks is None) == (batch.marks is None)
    if empty.sequences is not None:
        assert listed(empty.sequences) == {"positions": [], "targets": [], "owners": [], "count": 0}
        assert all(one.dtype == torch.int64 for one in (empty.sequences.positions, empty.sequences.targets, empty.sequences.owners))
    assert empty.marks is None or len(empty.marks) == 0


@pytest.mark.parametrize("name", COLLATORS)
def test_a_batch_moves_whole(name: str) -> None:
    """To the device `meta`, which every machine has: all but the borders, which kernels read as numbers."""
    moved = COLLATORS[name]().to(torch.device("meta"))
    tensors = {one.name: getattr(moved, one.name) for one in fields(moved) if isinstance(getattr(moved, one.name), torch.Tensor)}
    assert {key for key, value in tensors.items() if value.device.type == "cpu"} <= {"bounds", "prefixes"}
    assert all(value.device.type == "meta" for key, value in tensors.items() if key not in ("bounds", "prefixes"))
    if moved.sequences is not None:
        assert {one.device.type for one in (moved.sequences.positions, moved.sequences.targets, moved.sequences.owners)} == {"meta"}

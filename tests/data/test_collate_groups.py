"""Prompts with several answers, in three layouts: the log-probabilities of each answer are those of its row by itself (transformers and
torch alone, float64)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from tests.harness.prompts import groups, one_by_one
from tunewright.config.run import RunConfig
from tunewright.data.collate_groups import (
    CollateGroups,
    Group,
    collate_groups_flat,
    collate_groups_padded,
    collate_groups_shared,
    prompts_of,
    without_answers,
)
from tunewright.data.collate_prompts import collate_prompts_left
from tunewright.kernels import plan
from tunewright.stages.sequence_logps import answer_states, token_logps

SHAPES = ((5, (3, 1, 4)), (1, (2,)), (9, (1, 6)))
GIVEN = groups(SHAPES)
GROUPS = [Group(40 + number, group.prompt.tolist(), [answer.tolist() for answer in group.answers]) for number, group in enumerate(GIVEN)]


@pytest.fixture(scope="module")
def models() -> tuple[Any, Any]:
    """A plain model, and the same weights with our attention."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "initializer_range": 0.2}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        plain = LlamaForCausalLM(LlamaConfig(**shape)).double().eval()
        ours = LlamaForCausalLM(LlamaConfig(**shape)).double().eval()
    ours.load_state_dict(plain.state_dict())
    plan.apply(RunConfig(), ours)
    return plain, ours


@pytest.mark.parametrize("collate", [collate_groups_shared, collate_groups_flat, partial(collate_groups_padded, pad_token_id=0)])
def test_every_layout_says_the_same_of_each_answer(models: tuple[Any, Any], collate: CollateGroups) -> None:
    plain, ours = models
    batch = collate(GROUPS)
    assert batch.sample_ids == (40, 41, 42) and batch.sequences is not None and batch.sequences.count == 6
    with torch.no_grad():
        wanted, found, states = one_by_one(plain, GIVEN), token_logps(ours, batch), answer_states(ours, batch)
    assert torch.allclose(found, wanted, atol=1e-12) and torch.equal(states.logps, found)
    assert batch.sequences.targets.tolist() == [token for group in GROUPS for answer in group.answers for token in answer]


def test_a_shared_prompt_is_there_once() -> None:
    """5 + 8 tokens, 1 + 2, 9 + 7: each prompt and each answer once."""
    assert collate_groups_shared(GROUPS).input_ids.shape == (1, 32)
    assert collate_groups_flat(GROUPS).input_ids.shape == (1, 51)


def test_entropy_and_hidden_states(models: tuple[Any, Any]) -> None:
    """With and without our output head: torch's entropy of the plain model's logits, and its last hidden states."""
    from tunewright.kernels import output_head

    plain, ours = models
    states = [answer_states(ours, collate_groups_flat(GROUPS))]
    assert output_head.adopt(ours) is None
    states.append(answer_states(ours, collate_groups_shared(GROUPS)))
    entropies, hidden = [], []
    for group in GIVEN:
        for row in group.rows():
            with torch.no_grad():
                output = plain(input_ids=row[None], output_hidden_states=True)
            kept = slice(len(group.prompt) - 1, -1)
            entropies.append(torch.distributions.Categorical(logits=output.logits[0, kept]).entropy())
            hidden.append(output.hidden_states[-1][0, kept])
    for one in states:
        assert torch.allclose(one.entropy(), torch.cat(entropies), atol=1e-12) and not one.entropy().requires_grad
        assert torch.allclose(one.hidden, torch.cat(hidden), atol=1e-12) and one.hidden.requires_grad


def test_prompts_come_back_as_they_were(models: tuple[Any, Any]) -> None:
    """Left padding is taken off again; a batch that stands in for rows that are not there has none, and trains nothing."""
    import numpy as np

    from tunewright.data.collate import Example, without_labels

    rows = [np.array([5, 6, 7], np.int32), np.array([0, 9], np.int32)]
    batch = collate_prompts_left([Example(row, np.full_like(row, -100), np.array([0, len(row)]), 7 + n) for n, row in enumerate(rows)], 0)
    assert prompts_of(batch) == [[5, 6, 7], [0, 9]]
    empty = without_labels(batch)
    assert prompts_of(empty) == []
    stand_in = without_answers(empty, collate_groups_shared)
    assert stand_in.sequences is not None and stand_in.sequences.count == 0 and stand_in.sample_ids == ()
    logps = token_logps(models[1], stand_in)
    assert logps.shape == (0,) and logps.requires_grad

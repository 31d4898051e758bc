"""Rows of a batch that begin alike share that beginning. Oracle: each row by itself, through transformers' own forward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.kernels.test_isolation import GOLDEN, MODELS, ROUNDED, exact_softmax, gradients, one_by_one, tiny, with_adapter
from tunewright.config.run import RunConfig
from tunewright.data.collate import SHORTEST_SHARED, Batch, Example, collate_flat, collate_flat_shared
from tunewright.kernels.plan import KernelPlan, apply, share_beginnings
from tunewright.stages.sft import SupervisedFineTuning
from tunewright.stages.stage import Role

PROMPT = list(range(20, 32))
also_exact = exact_softmax


@pytest.fixture(autouse=True)
def exact_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers' norms round to float32, whatever the rest; here they do not. What is shared gets the gradients of all rows added
    up before such a rounding, and not after it."""
    convert = torch.Tensor.to

    def kept(states: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
        narrows = states.dtype == torch.float64 and given[:1] == (torch.float32,)
        return states if narrows else convert(states, *given, **named)

    monkeypatch.setattr(torch.Tensor, "to", kept)
    monkeypatch.setattr(torch.Tensor, "float", lambda states: kept(states, torch.float32))


def row(*tokens: int, untrained: int, number: int = 0) -> Example:
    """Tokens of which the first few have no label."""
    ids = np.array(tokens, np.int32)
    labels = np.where(np.arange(len(ids)) < untrained, -100, ids).astype(np.int32)
    return Example(ids, labels, np.array([0, len(ids)], np.int32), number)


def run(flash_attn: str = "auto") -> RunConfig:
    plain = RunConfig()
    return replace(plain, model=replace(plain.model, flash_attn=flash_attn))


def packed(*rows: Example) -> Example:
    return Example(np.concatenate([one.input_ids for one in rows]), np.concatenate([one.labels for one in rows]),
                   np.cumsum([0, *(len(one.input_ids) for one in rows)]).astype(np.int32), rows[0].sample_id)


BATCHES: dict[str, list[Example]] = {
    "three rows after one prompt": [row(*PROMPT, 40, 41, 42, untrained=13), row(*PROMPT, 50, 51, untrained=13, number=1),
                                    row(*PROMPT, 60, 61, 62, 63, untrained=14, number=2)],
    "a row of another kind between": [row(*PROMPT, 40, 41, untrained=13), row(*range(3, 15), 7, 8, untrained=12, number=1),
                                      row(*range(3, 15), 9, 9, 9, untrained=13, number=2), row(*PROMPT, 44, 45, untrained=13, number=3)],
    "the same row twice, a shorter one, one without a label": [
        row(*PROMPT, 40, 41, 42, untrained=13), row(*PROMPT, 40, 41, 42, untrained=13, number=1), row(*PROMPT[:10], untrained=9, number=2),
        row(*PROMPT, 5, untrained=13, number=3)],
    "packed sequences": [packed(row(*PROMPT, 40, 41, untrained=13), row(*PROMPT, 42, untrained=12)),
                         packed(row(*PROMPT, 43, 44, untrained=13, number=1), row(9, 8, untrained=1), row(*PROMPT, 3, 4, untrained=13))],
}


@pytest.mark.parametrize("flash_attn", ["disabled", "auto"])
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("examples", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("trained", ["full", "LoRA, checkpointed"])
def test_loss_and_gradients_are_those_of_the_rows(kind: str, flash_attn: str, examples: list[Example], trained: str) -> None:
    """In float64, to 1e-10, with sliding windows, sinks, experts and capped logits."""
    reference = tiny(kind, "eager" if flash_attn == "disabled" or not tiny(kind)._supports_sdpa else "sdpa")
    model = tiny(kind)
    settings = run(flash_attn)
    chosen = apply(settings, model)
    if trained.startswith("LoRA"):
        reference, model = with_adapter(reference), with_adapter(model)
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    assert share_beginnings(settings, chosen, model).shares_prefixes
    expected_loss, expected = one_by_one(reference, examples)
    batch = collate_flat_shared(examples)
    assert batch.prefixes is not None
    loss = SupervisedFineTuning().loss({Role.POLICY: model.train()}, batch)
    loss.sum.backward()
    near = ROUNDED if kind == "gemma2" else GOLDEN
    assert float(loss.sum.detach()) == pytest.approx(expected_loss, rel=near, abs=near)
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=near, atol=near * max(1.0, float(gradient.abs().max()))), name


def rows_again(batch: Batch) -> Iterator[list[tuple[int, int, int]]]:
    """Token, position and target of each row up to its last target, put together again as `prefixes` says."""
    assert batch.bounds is not None
    bounds = batch.bounds.tolist()
    prefixes = [0] * (len(bounds) - 1) if batch.prefixes is None else batch.prefixes.tolist()
    ids, positions, targets = (one[0].tolist() for one in (batch.input_ids, batch.position_ids, batch.targets))
    root = 0
    for number, prefix in enumerate(prefixes):
        root = root if prefix else bounds[number]
        own = slice(bounds[number], bounds[number + 1])
        shared = slice(root, root + prefix)
        row = list(zip(ids[shared] + ids[own], positions[shared] + positions[own], [-100] * prefix + targets[own], strict=True))
        yield row[:max((place + 1 for place, (_, _, target) in enumerate(row) if target != -100), default=0)]


@pytest.mark.parametrize("examples", BATCHES.values(), ids=BATCHES)
def test_a_batch_holds_the_same_rows(examples: list[Example]) -> None:
    """Tokens, positions and targets of every row are as without sharing, and fewer tokens go through the model."""
    plain, shared = collate_flat(examples), collate_flat_shared(examples)
    assert list(rows_again(shared)) == list(rows_again(plain))
    assert shared.input_ids.numel() < plain.input_ids.numel()
    assert shared.num_tokens == plain.num_tokens == sum(len(one.input_ids) for one in examples)
    assert shared.sample_ids == plain.sample_ids


@pytest.mark.parametrize(("rows", "lengths"), [
    ([row(1, 2, 3, 4, untrained=1)], [3]),  # the last token is predicted and predicts nothing
    ([row(1, 2, 3, 4, untrained=4), row(5, untrained=1)], [1, 1]),  # no label at all: one token, so that the row is there
    ([row(*PROMPT, 40, 41, untrained=13), row(*PROMPT, 50, 51, untrained=13)], [13, 1]),
    ([row(*PROMPT, 40, untrained=12), row(*PROMPT, 40, 50, 51, untrained=14)], [13, 1]),  # the other continues all of it
    ([row(*PROMPT, 40, untrained=12), row(*PROMPT, 40, 50, 51, 52, untrained=14)], [13, 2]),
    ([row(*PROMPT, untrained=12), row(*PROMPT[:10], 50, untrained=11)], [10, 1]),  # neither trains: what is shared, and one
])
def test_nothing_behind_the_last_prediction_is_computed(rows: list[Example], lengths: list[int]) -> None:
    """Worked by hand. What is left out counts as a token of the batch all the same."""
    batch = collate_flat_shared(rows)
    assert batch.bounds is not None and batch.bounds.diff().tolist() == lengths
    assert batch.num_tokens == sum(len(one.input_ids) for one in rows)


def test_labels_behind_which_the_row_goes_on() -> None:
    """What follows the last label, here a question that was not answered yet, is left out. Targets by hand."""
    one = row(1, 2, 3, 4, 5, 6, 7, untrained=2)
    one.labels[4:] = -100
    batch = collate_flat_shared([one, row(8, 9, 9, untrained=1)])
    assert batch.input_ids.tolist() == [[1, 2, 3, 8, 9]] and batch.targets.tolist() == [[-100, 3, 4, 9, 9]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1]] and batch.unread == 5


@pytest.mark.parametrize(("second", "prefix"), [
    (row(*PROMPT, 50, 51, untrained=13), 12),  # differs at the 13th token
    (row(*PROMPT, 40, 41, untrained=13), 12),  # equal: the token before the first label is its own
    (row(*PROMPT, 40, 41, untrained=12), 11),  # trained from the 13th token on, which the 12th predicts
    (row(*PROMPT, 40, 41, untrained=14), 13),  # nothing trained: the last token is its own
    (row(*PROMPT[:8], 50, untrained=9), 8),
    (row(*PROMPT[:7], 50, 51, untrained=8), 0),  # fewer than are worth it
    (row(1, *PROMPT, untrained=8), 0),
    (row(*PROMPT, untrained=1), 0),
])
def test_how_much_is_shared(second: Example, prefix: int) -> None:
    """Worked by hand, after a first row of the prompt and 40, 41."""
    assert SHORTEST_SHARED == 8
    batch = collate_flat_shared([row(*PROMPT, 40, 41, untrained=13), second])
    assert (None if batch.prefixes is None else batch.prefixes.tolist()) == ([0, prefix] if prefix else None)


def told(kind: str = "llama", slow_paths: tuple[str, ...] = (), attention: str = "tunewright_packed",
         loss: dict[str, float] | None = None, **configured: Any) -> str:
    """Why a tiny model with these settings shares nothing."""
    settings = run()
    settings = replace(settings, kernels=replace(settings.kernels, slow_paths=slow_paths), loss=replace(
        settings.loss, **(loss or {})))
    model = tiny(kind)
    for name, value in configured.items():
        setattr(model.config, name, value)
    chosen = share_beginnings(settings, KernelPlan(attention, True, ()), model)
    assert not chosen.shares_prefixes
    return chosen.reasons[-1].rpartition(": ")[2]


def test_what_is_drawn_or_counted_for_every_token_is_not_shared() -> None:
    """Dropout, NEFTune and auxiliary losses would draw or count once for all rows."""
    assert told(attention_dropout=0.1) == "dropout is drawn for each row"
    assert told(loss={"neftune_noise_alpha": 5.0}) == "neftune_noise_alpha is drawn for each row"
    assert told("qwen3_moe", output_router_logits=True) == "the routers' auxiliary loss counts tokens"
    assert told("qwen3_moe", loss={"moe_aux_loss_coef": 0.1}) == "the routers' auxiliary loss counts tokens"
    assert told(attention="flash_attention_2") == "attention flash_attention_2 is not told of shared prompts"
    assert told(slow_paths=("prefix",)) == "slow_paths asks for it"
    padded = KernelPlan("sdpa", False, ())
    assert share_beginnings(run(), padded, tiny("llama")) is padded


def test_dropout_of_adapters_is_not_shared() -> None:
    """It is a module of its own."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny("llama"), LoraConfig(target_modules=["q_proj"], lora_dropout=0.1))
    assert not share_beginnings(run(), KernelPlan("tunewright_packed", True, ()), model).shares_prefixes

"""Log-probabilities of answers are the same in every layout of a batch.

Oracle: each row by itself through transformers' own forward, torch's log_softmax, and sums over the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.harness.prompts import Group, groups, one_by_one, shared
from tests.kernels.test_isolation import exact_softmax, gradients, run, tiny
from tests.kernels.test_prefix_sharing import exact_norms
from tunewright.data.collate import Batch, Example, collate_flat, without_labels
from tunewright.data.collate_pairs import collate_pairs_flat, collate_pairs_padded, collate_pairs_shared
from tunewright.kernels import output_head
from tunewright.kernels.plan import apply
from tunewright.stages.causal_lm import model_inputs
from tunewright.stages.sequence_logps import sequence_logps, token_logps

also_exact = (exact_softmax, exact_norms)
LAYOUTS: dict[str, Callable[[Sequence[Example]], Batch]] = {
    "shared": collate_pairs_shared, "flat": collate_pairs_flat, "padded": partial(collate_pairs_padded, pad_token_id=0)}
PAIRS = [(6, (3, 5)), (2, (1, 1)), (7, (4, 2))]
NEAR = 1e-10


def example_of(group: Group, number: int = 0) -> Example:
    """A pair as it is stored: prompt + chosen, prompt + rejected, labels on the answers."""
    rows = group.rows()
    labels = [torch.cat((torch.full_like(group.prompt, -100), answer)) for answer in group.answers]
    ids, marks = (torch.cat(parts).numpy().astype(np.int32) for parts in (rows, labels))
    return Example(ids, marks, np.cumsum([0, *map(len, rows)]).astype(np.int32), number)


def opened(kind: str, layout: str, *, adopted: bool) -> nn.Module:
    """Under our attention where rows are laid end to end, under transformers' where they are padded."""
    model = tiny(kind)
    apply(run("auto", packing=False, padding_free=layout != "padded"), model)
    if adopted:
        assert output_head.adopt(model) is None
    return model.train()


def of_rows(model: nn.Module, given: Sequence[Group]) -> Tensor:
    """[N] sums of the rows' log-probabilities, answer by answer."""
    lengths = [len(answer) for group in given for answer in group.answers]
    return torch.stack([part.sum() for part in one_by_one(model, given).split(lengths)])


@pytest.mark.parametrize("adopted", [True, False], ids=["from hidden states", "from logits"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["llama", "qwen3_moe", "gpt_oss", "mistral"])
def test_every_layout_gives_the_log_probabilities_of_the_rows(kind: str, layout: str, adopted: bool) -> None:
    """Tokens, sums and every gradient in float64, to 1e-10."""
    given = groups(PAIRS)
    reference = tiny(kind).train()
    reference.set_attn_implementation("eager")
    model = opened(kind, layout, adopted=adopted)
    batch = LAYOUTS[layout]([example_of(group) for group in given])
    with torch.no_grad():
        assert torch.allclose(token_logps(model, batch), one_by_one(reference, given), rtol=NEAR, atol=NEAR)
    expected, found = of_rows(reference, given), sequence_logps(model, batch)
    assert torch.allclose(found, expected, rtol=NEAR, atol=NEAR)
    factors = torch.tensor([0.7, -1.1, 0.2, 1.9, -0.4, 0.3], dtype=torch.float64)
    for logps in (expected, found):
        (logps * factors).sum().backward()
    wanted, got = gradients(reference), gradients(model)
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert torch.allclose(got[name], gradient, rtol=NEAR, atol=NEAR * max(1.0, float(gradient.abs().max()))), name


def test_rows_that_begin_differently_share_nothing() -> None:
    """A prefix of 0 is a row by itself, beside a pair that shares."""
    first, second = groups([(1, (3, 2)), (5, (2, 2))])
    apart = example_of(Group(first.prompt, [first.answers[0]])), example_of(Group(first.prompt + 1, [first.answers[1]]))
    pair = Example(np.concatenate([one.input_ids for one in apart]), np.concatenate([one.labels for one in apart]),
                   np.array([0, 4, 7], np.int32), 0)
    batch = collate_pairs_shared([pair, example_of(second, 1)])
    assert batch.prefixes is not None
    assert batch.prefixes.tolist() == [0, 0, 0, 5]
    assert model_inputs(batch)["prefix_lens"] is batch.prefixes
    rows = [Group(first.prompt, [first.answers[0]]), Group(first.prompt + 1, [first.answers[1]]), second]
    found = sequence_logps(opened("llama", "shared", adopted=True), batch)
    assert torch.allclose(found, of_rows(tiny("llama"), rows), rtol=NEAR, atol=NEAR)


def test_several_answers_to_a_prompt() -> None:
    """A group of four, then one of two."""
    given = groups([(5, (2, 4, 1, 3)), (3, (2, 2))])
    batch = shared(given)
    assert batch.input_ids.numel() == 5 + 10 + 3 + 4
    found = sequence_logps(opened("llama", "shared", adopted=True), batch)
    assert torch.allclose(found, of_rows(tiny("llama"), given), rtol=NEAR, atol=NEAR)


def test_only_positions_that_predict_an_answer_are_projected() -> None:
    """By hand: prompt of 6 and answers of 3 and 5 are predicted from the prompt's last token, 2 and 4 more; it is projected once."""
    model = opened("llama", "shared", adopted=False)
    widths: list[int] = []
    model.lm_head.register_forward_hook(lambda _, given, found: widths.append(found.shape[1]))
    token_logps(model, collate_pairs_shared([example_of(*groups([(6, (3, 5))]))]))
    assert widths == [1 + 2 + 4]


@pytest.mark.parametrize("adopted", [True, False])
def test_a_batch_without_answers_gives_none_and_gradients_of_zero(adopted: bool) -> None:
    """What a rank runs at the end of an epoch: every weight still gets a gradient, so that ranks can add them up."""
    model = opened("llama", "shared", adopted=adopted)
    batch = without_labels(collate_pairs_shared([example_of(*groups([(6, (3, 5))]))]))
    found = sequence_logps(model, batch)
    assert found.shape == (0,)
    found.sum().backward()
    assert gradients(model).keys() == dict(model.named_parameters()).keys()
    assert not any(bool(gradient.any()) for gradient in gradients(model).values())


def test_layouts_without_a_shared_prompt_tell_the_model_nothing_new() -> None:
    """The keyword arguments of fine-tuning stay what they were."""
    plain = {"input_ids", "position_ids", "attention_mask", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"}
    example = example_of(*groups([(6, (3, 5))]))
    assert model_inputs(collate_flat([example])).keys() == model_inputs(collate_pairs_flat([example])).keys() == plain
    assert model_inputs(collate_pairs_shared([example])).keys() == plain | {"prefix_lens"}

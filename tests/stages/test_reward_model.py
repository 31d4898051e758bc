"""Stage rm: its loss, rewards and gradients in every layout and split, float64 to 1e-10 relative.

Oracle: a plain restatement by transformers alone, one row at a time: the last hidden state of the row's last token, a linear layer, and
log(1 + exp(rejected - chosen)).
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from tunewright.data.collate import Example, without_labels
from tunewright.data.collate_pairs import collate_pairs_flat, collate_pairs_padded, collate_pairs_shared
from tunewright.engine.batches import Loading, Order, Share, TrainBatches
from tunewright.engine.step import Machinery, accumulate
from tunewright.kernels import output_head, packed_attention
from tunewright.models.heads import new_value_head, value_head_of
from tunewright.runtime import Ranks
from tunewright.stages.reward_model import RewardModeling, last_tokens, sequence_rewards
from tunewright.stages.stage import Role

GOLDEN = 1e-10
LENGTHS = ((7, 3, 5), (4, 1, 1), (9, 6, 2), (2, 8, 8), (12, 1, 4), (3, 2, 1), (6, 4, 4), (5, 9, 3))
"""Tokens of the prompt, of the chosen and of the rejected answer, eight pairs; one-token answers among them."""


def pairs() -> list[Example]:
    rng = np.random.default_rng(7)
    found = []
    for number, (prompt, *answers) in enumerate(LENGTHS):
        first = rng.integers(3, 96, prompt)
        rows = [np.concatenate([first, rng.integers(3, 96, length)]).astype(np.int32) for length in answers]
        if rows[0].tolist() == rows[1].tolist():
            rows[1][-1] = 3 + (rows[1][-1] - 2) % 93
        labels = [np.concatenate([np.full(prompt, -100), row[prompt:]]).astype(np.int32) for row in rows]
        bounds = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int32)
        found.append(Example(np.concatenate(rows), np.concatenate(labels), bounds, number))
    return found


class Rows(list[Example]):
    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(one.input_ids) for one in self])


def model(attention: str = "sdpa", kind: str = "llama", *, tied: bool = True) -> torch.nn.Module:
    import transformers as hf

    torch.manual_seed(5)
    shape = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "initializer_range": 0.2,
             "tie_word_embeddings": tied}
    extra = {"llama": {}, "gemma2": {"head_dim": 8, "sliding_window": 16}, "granite": {"logits_scaling": 4.0},
             "cohere": {"logit_scale": 0.5}}
    config = {"llama": hf.LlamaConfig, "gemma2": hf.Gemma2Config, "granite": hf.GraniteConfig, "cohere": hf.CohereConfig,
              "gpt2": hf.GPT2Config}[kind]
    built = config(**shape, **extra[kind]) if kind != "gpt2" else config(
        vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.2)
    made = hf.AutoModelForCausalLM.from_config(built, attn_implementation=attention).double()
    for module in made.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = partial(exact_norm, module)
    head = new_value_head(made, seed=1)
    head.summary.bias.requires_grad_(False)
    return made


def exact_norm(norm: torch.nn.Module, states: torch.Tensor) -> torch.Tensor:
    """Transformers' norm rounds to float32; a shared prompt gets the gradients of its answers added up before that, not after."""
    return norm.weight * states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)


def plain_rewards(reference: torch.nn.Module) -> list[torch.Tensor]:
    """Row by row: value of the last hidden state at the row's last token."""
    head = value_head_of(reference)
    assert head is not None
    found = []
    for pair in pairs():
        for begin, end in zip(pair.bounds.tolist(), pair.bounds.tolist()[1:], strict=False):
            ids = torch.from_numpy(pair.input_ids[begin:end].astype(np.int64)).unsqueeze(0)
            states = reference(input_ids=ids, output_hidden_states=True).hidden_states[-1]
            found.append((states[0, -1] * head.summary.weight[0]).sum() + head.summary.bias[0])
    return found


def plain(reference: torch.nn.Module) -> tuple[float, dict[str, torch.Tensor]]:
    rewards = plain_rewards(reference)
    loss = torch.stack([torch.log1p(torch.exp(rewards[2 * i + 1] - rewards[2 * i])) for i in range(len(LENGTHS))]).mean()
    loss.backward()
    return float(loss.detach()), gradients(reference)


def gradients(policy: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name.removeprefix("module."): one.grad for name, one in policy.named_parameters()
            if one.grad is not None and bool(one.grad.any())}


def same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return actual.keys() == expected.keys() and all(
        torch.allclose(actual[name], expected[name], rtol=GOLDEN, atol=GOLDEN * float(expected[name].abs().max())) for name in expected)


LAYOUTS = {"padded": ("sdpa", partial(collate_pairs_padded, pad_token_id=0)), "flat": (packed_attention.NAME, collate_pairs_flat),
           "shared": (packed_attention.NAME, collate_pairs_shared)}


def one_step(share: Share, layout: str, ranks: Ranks) -> tuple[float, dict[str, torch.Tensor], dict[str, float]]:
    """Loss, gradients and metrics of the first step."""
    from accelerate import Accelerator

    packed_attention.register()
    attention, collate = LAYOUTS[layout]
    accelerator = Accelerator(cpu=True)
    made = model(attention)
    assert output_head.adopt(made) is None
    policy = accelerator.prepare(made)
    stage = RewardModeling()
    optimizer = torch.optim.SGD([one for one in policy.parameters() if one.requires_grad], lr=0.0)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    machinery = Machinery(stage, {Role.POLICY: policy}, optimizer, schedule, accelerator, ranks, 0.0)
    batches = TrainBatches(Rows(pairs()), Order(0, by_length=False), share, Loading(collate, 0, 60))
    window = next(iter(batches.windows(0, 0)))
    (count,) = ranks.all_reduce_sum([float(sum(stage.units(batch) for batch in window.batches))])
    mine = accumulate(machinery, window.batches, count)
    names = sorted(mine.metrics)
    total, *parts = ranks.all_reduce_sum([mine.loss, *(part for name in names for part in mine.metrics[name])])
    metrics = {name: parts[2 * number] / parts[2 * number + 1] for number, name in enumerate(names)}
    return total / count, gradients(policy), metrics


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("per_device", "accumulation"), [(8, 1), (4, 2), (3, 3)])
def test_any_split_and_layout_gives_the_same_step(layout: str, per_device: int, accumulation: int) -> None:
    """3 x 3 leaves an uneven tail. Nothing but the output projection's own weight is without a gradient."""
    loss, found, metrics = one_step(Share(per_device, accumulation, 0, 1), layout, Ranks())
    reference = model()
    expected_loss, expected = plain(reference)
    assert loss == pytest.approx(expected_loss, rel=GOLDEN) and same(found, expected)
    assert found.keys() == {name for name, one in reference.named_parameters() if one.requires_grad}
    rewards = torch.stack(plain_rewards(model())).detach()
    chosen, rejected = rewards[0::2], rewards[1::2]
    assert metrics == pytest.approx({
        "rewards/chosen": float(chosen.mean()), "rewards/rejected": float(rejected.mean()),
        "rewards/accuracies": float((chosen > rejected).double().mean()), "rewards/margins": float((chosen - rejected).mean())}, rel=1e-9)
    assert 0 < metrics["rewards/accuracies"] < 1


@pytest.mark.parametrize("kind", ["llama", "gemma2", "granite", "cohere", "gpt2"])
@pytest.mark.parametrize("adopted", [True, False])
def test_rewards_do_not_depend_on_how_hidden_states_are_taken(kind: str, adopted: bool) -> None:
    """Families that scale or cap their logits, with the output projection taken over and not: a reward comes before any of that. To
    float32's rounding, which eager attention's softmax and these families' norms compute in."""
    made = model("eager", kind).eval()
    if adopted:
        assert output_head.adopt(made) is None
    with torch.no_grad():
        expected = torch.stack(plain_rewards(made))
        found = sequence_rewards(made, collate_pairs_padded(pairs(), pad_token_id=0))
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_a_tie_costs_ln_two_and_is_not_won() -> None:
    """A head of zeros gives every answer the same reward: -log sigmoid(0) = ln 2."""
    made = model()
    torch.nn.init.zeros_(value_head_of(made).summary.weight)  # type: ignore[union-attr]
    with torch.no_grad():
        loss = RewardModeling().loss({Role.POLICY: made}, collate_pairs_padded(pairs(), pad_token_id=0))
    assert float(loss.sum) == pytest.approx(8 * np.log(2), rel=1e-12) and loss.count == 8
    assert loss.metrics["rewards/accuracies"] == loss.metrics["rewards/margins"] == (0.0, 8.0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_last_token_of_every_answer_is_found(layout: str) -> None:
    """Oracle: the bounds of the rows, and on a shared layout what follows the prompt. One-token answers follow the prompt at once."""
    batch = LAYOUTS[layout][1](pairs())
    longest = max(prompt + max(answers) for prompt, *answers in LENGTHS)
    expected, place = [], -1
    for number, (prompt, chosen, rejected) in enumerate(LENGTHS):
        if layout == "padded":
            expected += [2 * number * longest + prompt + chosen - 1, (2 * number + 1) * longest + prompt + rejected - 1]
        else:
            expected += [place + prompt + chosen, place + prompt + chosen + rejected + (prompt if layout == "flat" else 0)]
            place = expected[-1]
    assert last_tokens(batch).tolist() == expected


def test_a_rank_without_rows_takes_part_with_a_loss_of_zero() -> None:
    """Its gradients are zeros, not absent: the other ranks wait for them."""
    made = model()
    output_head.adopt(made)
    batch = without_labels(collate_pairs_padded(pairs()[:1], pad_token_id=0))
    stage = RewardModeling()
    loss = stage.loss({Role.POLICY: made}, batch)
    loss.sum.backward()
    assert (stage.units(batch), loss.count, float(loss.sum.detach())) == (0, 0, 0.0)
    grads = [one.grad for one in made.parameters() if one.requires_grad]
    assert all(grad is not None and not bool(grad.any()) for grad in grads)

"""The stages dpo and kto against an independent restatement in float64: every row by itself through transformers' own forward pass,
formulas written out with exp and log as the papers have them (and as TRL and LLaMA-Factory compute them)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from tunewright.config.alignment import AlignmentConfig
from tunewright.data.collate import Batch, Example, without_labels
from tunewright.data.collate_feedback import WithPartners, collate_feedback_flat, collate_feedback_padded
from tunewright.data.collate_pairs import collate_pairs_flat, collate_pairs_padded, collate_pairs_shared
from tunewright.engine.batches import Collate, Loading, Order, Share, TrainBatches
from tunewright.engine.step import Machinery, accumulate, updates_of
from tunewright.kernels.packed_attention import register
from tunewright.runtime import Ranks
from tunewright.stages.dpo import PreferenceOptimization
from tunewright.stages.kto import FeedbackOptimization
from tunewright.stages.reference import RememberedReference, quiet_logps, sequence_keys
from tunewright.stages.stage import Loss, Role, Stage, StepContext

SHAPES = ((5, 3, 4), (9, 1, 6), (2, 7, 1), (4, 4, 4), (11, 2, 3), (1, 5, 2), (6, 1, 1), (3, 8, 9))
"""Tokens of prompt, chosen and rejected answer of each pair."""
CUTOFF = 64
GOLDEN = 1e-10
COLLATORS: dict[str, Collate] = {
    "shared": collate_pairs_shared, "flat": collate_pairs_flat, "padded": partial(collate_pairs_padded, pad_token_id=0)}
FEEDBACK: dict[str, Collate] = {
    "flat": WithPartners(partial(collate_feedback_flat, cutoff_len=CUTOFF)),
    "padded": WithPartners(partial(collate_feedback_padded, cutoff_len=CUTOFF, pad_token_id=0))}
BETA = 0.3


@dataclass
class Rows:
    """Eight pairs of random tokens, or their answers by turns as marked rows."""

    feedback: bool = False
    rows: list[Example] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(3)
        for number, (prompt, *answers) in enumerate(SHAPES):
            begin = rng.integers(3, 96, prompt)
            both = [np.concatenate([begin, rng.integers(3, 96, size)]).astype(np.int32) for size in answers]
            kept = [both[number % 2]] if self.feedback else both
            labels = [np.where(np.arange(len(row)) < prompt, -100, row).astype(np.int32) for row in kept]
            bounds = np.cumsum([0, *map(len, kept)]).astype(np.int32)
            mark = (1 if number % 3 else -1) if self.feedback else 0
            self.rows.append(Example(np.concatenate(kept), np.concatenate(labels), bounds, number, mark))

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(row.input_ids) for row in self.rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        return self.rows[index]


def model(seed: int, attention: str = "sdpa") -> Any:
    """In evaluation mode: packed attention then takes padded rows as well."""
    import transformers

    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=CUTOFF, pad_token_id=0)
    made = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).double().eval()
    for norm in [module for module in made.modules() if type(module).__name__ == "LlamaRMSNorm"]:
        norm.forward = partial(_norm, norm)  # transformers' own computes in float32, whose rounding would hide an error of 1e-10
    return made


def _norm(norm: Any, states: torch.Tensor) -> torch.Tensor:
    return norm.weight * states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)


def spans(example: Example) -> list[tuple[np.ndarray, int]]:
    """Tokens of each segment, and where its answer begins."""
    found = []
    for begin, end in zip(example.bounds, example.bounds[1:], strict=False):
        found.append((example.input_ids[begin:end].astype(np.int64), int(np.argmax(example.labels[begin:end] != -100))))
    return found


def plain_logp(net: Any, tokens: np.ndarray, prompt: int) -> torch.Tensor:
    """Sum over the answer of log softmax, one row alone."""
    ids = torch.from_numpy(tokens)[None]
    logps = torch.log_softmax(net(input_ids=ids).logits[0, :-1], dim=-1)
    return logps[torch.arange(prompt - 1, len(tokens) - 1), ids[0, prompt:]].sum()


def plain_pair(loss: str, policy: Any, reference: Any, ftx: float, smoothing: float) -> torch.Tensor:
    """The mean over all pairs."""
    rows = []
    for example in Rows().rows:
        both = spans(example)
        logps = [plain_logp(policy, *one) for one in both]
        with torch.no_grad():
            refs = [plain_logp(reference, *one) for one in both]
        rows.append((logps, refs, [len(tokens) - prompt for tokens, prompt in both]))
    kls = [max(0.0, sum(float(row[0][side].detach() - row[1][side]) for row in rows) / len(rows)) for side in (0, 1)]
    total = torch.zeros((), dtype=torch.float64)
    for (pc, pr), (rc, rr), (nc, nr) in rows:
        sigmoid = [1 / (1 + torch.exp(-BETA * sign * ((pc - rc) - (pr - rr)))) for sign in (1, -1)]
        ac, ar = pc / nc, pr / nr
        one = {
            "sigmoid": lambda s=sigmoid: -(1 - smoothing) * torch.log(s[0]) - smoothing * torch.log(s[1]),
            "robust": lambda s=sigmoid: (-(1 - smoothing) * torch.log(s[0]) + smoothing * torch.log(s[1])) / (1 - 2 * smoothing),
            "hinge": lambda pc=pc, pr=pr, rc=rc, rr=rr: (1 - BETA * ((pc - rc) - (pr - rr))).clamp(min=0),
            "ipo": lambda pc=pc, pr=pr, rc=rc, rr=rr, nc=nc, nr=nr: ((pc - rc) / nc - (pr - rr) / nr - 1 / (2 * BETA)) ** 2,
            "kto_pair": lambda pc=pc, pr=pr, rc=rc, rr=rr: (
                1 - 1 / (1 + torch.exp(-BETA * (pc - rc - kls[1]))) + 1 - 1 / (1 + torch.exp(-BETA * (kls[0] - pr + rr)))) / 2,
            "orpo": lambda ac=ac, ar=ar: -ac - BETA * torch.log(1 / (1 + torch.exp(
                -(ac - ar - torch.log((1 - ac.exp()) / (1 - ar.exp())))))),
            "simpo": lambda ac=ac, ar=ar: -torch.log(1 / (1 + torch.exp(-(BETA * (ac - ar) - 0.5)))),
        }[loss]()
        total = total + one - ftx * ac
    return total / len(rows)


def plain_kto(policy: Any, reference: Any, order: Sequence[int]) -> tuple[torch.Tensor, float]:
    """The mean over all rows, and the divergence: the answer of the row that follows in the step's order, after the prompt of each row."""
    examples = Rows(feedback=True).rows
    ratios, mismatched = [], []
    for place, number in enumerate(order):
        tokens, prompt = spans(examples[number])[0]
        other, begin = spans(examples[order[(place + 1) % len(order)]])[0]
        with torch.no_grad():
            joined = np.concatenate([tokens[:prompt], other[begin:]])
            mismatched.append(float(plain_logp(policy, joined, prompt) - plain_logp(reference, joined, prompt)))
            own = plain_logp(reference, tokens, prompt)
        ratios.append((plain_logp(policy, tokens, prompt) - own, examples[number].mark))
    kl = max(0.0, sum(mismatched) / len(mismatched))
    losses = [1.5 * (1 - 1 / (1 + torch.exp(-BETA * (ratio - kl)))) if mark > 0 else 0.7 * (1 - 1 / (1 + torch.exp(-BETA * (kl - ratio))))
              for ratio, mark in ratios]
    return torch.stack(losses).mean(), kl


def gradients(net: Any) -> dict[str, torch.Tensor]:
    return {name.removeprefix("module."): weight.grad for name, weight in net.named_parameters()}


def same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    scale = max(float(one.abs().max()) for one in expected.values())
    return actual.keys() == expected.keys() and all(
        torch.allclose(actual[name], expected[name], rtol=GOLDEN, atol=GOLDEN * scale) for name in expected)


def one_step(stage: Stage, share: Share, collate: Collate, attention: str, ranks: Ranks) -> tuple[float, dict[str, Any], list[int], Any]:
    """Loss, gradients, order and metrics of the first step; `share` says how the eight units are split."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    policy = accelerator.prepare(model(1, attention))
    models = {Role.POLICY: policy, Role.REFERENCE: model(2, attention)}
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.0)
    machinery = Machinery(stage, models, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer), accelerator, ranks, 0.0)
    rows = Rows(feedback=stage.name == "kto")
    order = Order(0, by_length=False)
    window = next(iter(TrainBatches(rows, order, share, Loading(collate, 0, 60)).windows(0, 0)))
    (batches,) = list(updates_of(machinery, window, 0))
    (count,) = ranks.all_reduce_sum([float(sum(stage.units(batch) for batch in batches))])
    assert count == 8
    sums = accumulate(machinery, batches, count)
    (total,) = ranks.all_reduce_sum([sums.loss])
    return total / count, gradients(policy), order.of(0, rows.lengths, 8).tolist(), sums.metrics


def loss_of(stage: Stage, models: dict[Role, Any], batch: Batch) -> Loss:
    with torch.no_grad():
        (update,) = list(stage.updates(models, [batch], StepContext(Ranks(), 0, 0, training=True)))
    return stage.loss(models, update[0])


@pytest.mark.parametrize("collator", list(COLLATORS))
@pytest.mark.parametrize("loss", ["sigmoid", "robust", "hinge", "ipo", "kto_pair", "orpo", "simpo"])
def test_dpo_is_its_formula(loss: str, collator: str) -> None:
    """Loss and gradients of every formula in every layout; hinge at a margin that some pairs reach and others do not."""
    policy, reference = model(1, register()), model(2, register())
    stage, _ = stage_named(loss)
    found = loss_of(stage, {Role.POLICY: policy, Role.REFERENCE: reference}, COLLATORS[collator](Rows().rows))
    (found.sum / found.count).backward()
    plain = model(1)
    expected = plain_pair(loss, plain, model(2), share_of_ftx(loss), smoothing_of(loss))
    expected.backward()
    assert found.count == 8 and float(found.sum.detach()) / 8 == pytest.approx(float(expected.detach()), rel=GOLDEN)
    assert same(gradients(policy), gradients(plain))


def test_metrics_of_pairs_worked_from_plain_numbers() -> None:
    """Rewards are beta times the log-ratio; an accuracy counts pairs whose chosen answer has the higher one."""
    policy, reference = model(1), model(2)
    stage = PreferenceOptimization(AlignmentConfig(pref_beta=BETA))
    metrics = loss_of(stage, {Role.POLICY: policy, Role.REFERENCE: reference}, COLLATORS["padded"](Rows().rows)).metrics
    with torch.no_grad():
        pairs = [[(float(plain_logp(policy, *one)), float(plain_logp(reference, *one))) for one in spans(row)] for row in Rows().rows]
    chosen, rejected = ([BETA * (pair[side][0] - pair[side][1]) for pair in pairs] for side in (0, 1))
    expected = {
        "rewards/chosen": sum(chosen), "rewards/rejected": sum(rejected), "rewards/margins": sum(chosen) - sum(rejected),
        "rewards/accuracies": sum(one > other for one, other in zip(chosen, rejected, strict=True)),
        "logps/chosen": sum(pair[0][0] for pair in pairs), "logps/rejected": sum(pair[1][0] for pair in pairs)}
    assert 0 < expected["rewards/accuracies"] < 8
    assert {name: total for name, (total, _) in metrics.items()} == pytest.approx(expected, rel=1e-10)
    assert {count for _, count in metrics.values()} == {8}


@pytest.mark.parametrize(("loss", "start"), [("sigmoid", math.log(2)), ("hinge", 1.0), ("ipo", 1 / (2 * BETA) ** 2), ("kto_pair", 0.5)])
def test_where_policy_and_reference_agree(loss: str, start: float) -> None:
    """Every log-ratio is 0: -log sigmoid(0) = ln 2, max(0, 1 - 0), (0 - 1 / (2 beta))^2, and the mean of two 1 - sigmoid(0)."""
    net = model(1)
    found = loss_of(PreferenceOptimization(AlignmentConfig(pref_loss=loss, pref_beta=BETA)), {Role.POLICY: net, Role.REFERENCE: net},
                    COLLATORS["padded"](Rows().rows))
    assert float(found.sum.detach()) / 8 == pytest.approx(start, rel=1e-12)


@pytest.mark.parametrize("collator", list(FEEDBACK))
def test_kto_is_its_formula(collator: str) -> None:
    """With the divergence of the mismatched rows, in an order in which it is above zero."""
    settings = AlignmentConfig(pref_beta=BETA, kto_chosen_weight=1.5, kto_rejected_weight=0.7)
    loss, found, order, metrics = one_step(FeedbackOptimization(settings), Share(8, 1, 0, 1), FEEDBACK[collator], register(), Ranks())
    plain = model(1)
    expected, kl = plain_kto(plain, model(2), order)
    expected.backward()
    assert kl > 0 and metrics["kl"][0] / metrics["kl"][1] == pytest.approx(kl, rel=GOLDEN)
    assert loss == pytest.approx(float(expected.detach()), rel=GOLDEN)
    assert same(found, gradients(plain))


def stage_named(name: str) -> tuple[Stage, dict[str, Collate]]:
    """kto, or dpo with a loss: every one with what it can have besides."""
    settings = AlignmentConfig(
        pref_beta=BETA, kto_chosen_weight=1.5, kto_rejected_weight=0.7, pref_ftx=share_of_ftx(name), dpo_label_smoothing=smoothing_of(name),
        pref_loss="sigmoid" if name == "kto" else name)
    return (FeedbackOptimization(settings), FEEDBACK) if name == "kto" else (PreferenceOptimization(settings), COLLATORS)


def share_of_ftx(loss: str) -> float:
    return 0.0 if loss == "orpo" else 0.25


def smoothing_of(loss: str) -> float:
    return 0.1 if loss in ("sigmoid", "robust") else 0.0


def expectation(name: str, order: list[int]) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of the whole step."""
    plain = model(1)
    loss = plain_kto(plain, model(2), order)[0] if name == "kto" else plain_pair(
        name, plain, model(2), share_of_ftx(name), smoothing_of(name))
    loss.backward()
    return float(loss.detach()), gradients(plain)


@pytest.mark.parametrize(("per_device", "accumulation"), [(4, 2), (2, 4), (3, 3)])
@pytest.mark.parametrize("name", ["sigmoid", "kto_pair", "kto"])
def test_any_split_of_the_step_gives_the_same(name: str, per_device: int, accumulation: int) -> None:
    """8 = 4 x 2 = 2 x 4 = 3 + 3 + 2: the divergences are those of the whole step."""
    stage, collators = stage_named(name)
    loss, found, order, _ = one_step(stage, Share(per_device, accumulation, 0, 1), collators["flat"], register(), Ranks())
    expected_loss, expected = expectation(name, order)
    assert loss == pytest.approx(expected_loss, rel=GOLDEN) and same(found, expected)


def test_a_batch_without_rows_counts_for_nothing() -> None:
    """Its loss is zero and reaches the weights, which other ranks wait for."""
    net = model(1, register())
    models = {Role.POLICY: net, Role.REFERENCE: model(2, register())}
    cases = [(stage_named("kto_pair")[0], COLLATORS["shared"](Rows().rows[:1])),
             (stage_named("kto")[0], FEEDBACK["flat"](Rows(feedback=True).rows[:2]))]
    for stage, batch in cases:
        found = loss_of(stage, models, without_labels(batch))
        found.sum.backward()
        assert (float(found.sum.detach()), found.count) == (0.0, 0) and {count for _, count in found.metrics.values()} == {0}
        assert all(weight.grad is not None and not weight.grad.any() for weight in net.parameters())


def test_a_sequence_has_one_key_in_every_layout() -> None:
    """And another token, or another answer over the same tokens, has another."""
    keys = [sequence_keys(collate(Rows().rows)) for collate in COLLATORS.values()]
    assert keys[0] == keys[1] == keys[2] and len(set(keys[0])) == 16
    row = Rows(feedback=True).rows[0]
    longer = row._replace(labels=np.where(np.arange(len(row.labels)) < len(row.labels) - 1, -100, row.labels).astype(np.int32))
    other = row._replace(input_ids=np.concatenate([[95 - row.input_ids[0]], row.input_ids[1:]]).astype(np.int32))
    found = [sequence_keys(FEEDBACK["flat"]([one, Rows(feedback=True).rows[1]]))[0] for one in (row, longer, other)]
    assert len(set(found)) == 3
    assert found[0] == sequence_keys(FEEDBACK["padded"]([row]))[0]


def test_a_remembered_reference_answers_as_the_model_did() -> None:
    """In another layout and order than it was asked in."""
    net, batch = model(2, register()), COLLATORS["padded"](Rows().rows)
    values = quiet_logps(net, batch).tolist()
    remembered = RememberedReference(dict(zip(sequence_keys(batch), values, strict=True)), torch.float64)
    found = remembered.of(COLLATORS["shared"](Rows().rows[4:6])).tolist()
    assert found == values[8:12]
    with pytest.raises(KeyError):
        remembered.of(COLLATORS["shared"]([Rows().rows[0]._replace(input_ids=Rows().rows[0].input_ids[::-1].copy())]))

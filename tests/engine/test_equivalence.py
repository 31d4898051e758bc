"""Batch 8 = 4 x 2 = 2 x 4 = packed: one step's loss and gradients, float64, to 1e-10 relative. Every stage, two ranks: `tests.selftest`.

Oracle: the plain formula, mean cross-entropy over all labels of the eight rows run one at a time through transformers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pytest
import torch

from tunewright.data.collate import Example
from tunewright.engine.assemble import collation
from tunewright.engine.batches import Collate, Loading, Order, Share, TrainBatches
from tunewright.engine.step import Machinery, accumulate
from tunewright.kernels.packed_attention import register
from tunewright.runtime import Ranks
from tunewright.stages.sft import SupervisedFineTuning
from tunewright.stages.stage import Role, Stage

LENGTHS = (5, 17, 9, 2, 30, 11, 3, 21)
GOLDEN = 1e-10
SFT: Final = SupervisedFineTuning()


@dataclass
class Rows:
    """Eight ragged rows of random tokens with random labels."""

    rows: list[Example] = field(default_factory=list)
    lengths: np.ndarray = field(default_factory=lambda: np.array(LENGTHS))

    def __post_init__(self) -> None:
        rng = np.random.default_rng(7)
        for number, length in enumerate(LENGTHS):
            ids = rng.integers(3, 96, length).astype(np.int32)
            labels = np.where(rng.random(length) < 0.6, ids, -100).astype(np.int32)
            labels[0], labels[-1] = -100, ids[-1]
            self.rows.append(Example(ids, labels, np.array([0, length], dtype=np.int32), number))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        return self.rows[index]


def model(attention: str) -> torch.nn.Module:
    import transformers

    torch.manual_seed(5)
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64, pad_token_id=0)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).double()


def one_step(
    share: Share, collate: Collate, attention: str, ranks: Ranks, stage: Stage = SFT,
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of the first step; `share` says how the eight rows are split."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    policy = accelerator.prepare(model(attention))
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.0)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    machinery = Machinery(stage, {Role.POLICY: policy}, optimizer, schedule, accelerator, ranks, 0.0)
    batches = TrainBatches(Rows(), Order(0, by_length=False), share, Loading(collate, 0, 60))
    window = next(iter(batches.windows(0, 0)))
    assert (window.consumed, window.ends_epoch) == (8, True)
    (count,) = ranks.all_reduce_sum([float(sum(stage.units(batch) for batch in window.batches))])
    (total,) = ranks.all_reduce_sum([accumulate(machinery, window.batches, count).loss])
    return total / count, {name.removeprefix("module."): weight.grad for name, weight in policy.named_parameters()}


def plain() -> tuple[float, dict[str, torch.Tensor]]:
    """Each row by itself through transformers' own forward; sum of cross-entropies over the number of labels."""
    reference = model("sdpa")
    total, count = torch.zeros((), dtype=torch.float64), 0
    for row in Rows().rows:
        ids, labels = (torch.from_numpy(part.astype(np.int64)).unsqueeze(0) for part in (row.input_ids, row.labels))
        logits = reference(input_ids=ids).logits
        total = total + torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:], reduction="sum")
        count += int((labels[0, 1:] != -100).sum())
    (total / count).backward()
    return float(total.detach()) / count, {name: weight.grad for name, weight in reference.named_parameters()}


def same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return actual.keys() == expected.keys() and all(
        torch.allclose(actual[name], expected[name], rtol=GOLDEN, atol=GOLDEN * float(expected[name].abs().max())) for name in expected)


@pytest.mark.parametrize(("per_device", "accumulation"), [(8, 1), (4, 2), (2, 4), (1, 8), (3, 3)])
@pytest.mark.parametrize("flat", [False, True])
def test_any_split_of_the_batch_gives_the_same_step(per_device: int, accumulation: int, flat: bool) -> None:
    """3 x 3 leaves an uneven tail: micro-batches of 3, 3 and 2 rows."""
    attention = register() if flat else "sdpa"
    loss, gradients = one_step(Share(per_device, accumulation, 0, 1), collation(flat, 0), attention, Ranks())
    expected_loss, expected = plain()
    assert loss == pytest.approx(expected_loss, rel=GOLDEN)
    assert same(gradients, expected)

"""One SFT step of the real demo model against plain transformers + peft: eight ragged rows, fp32, to 1e-4 relative; as a run makes it, to
1e-5."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from tunewright.data.collate import Example, collate_flat, collate_flat_shared, collate_padded
from tunewright.dialects.read import read_config
from tunewright.kernels.packed_attention import register
from tunewright.kernels.plan import apply, hasten, share_beginnings
from tunewright.stages.sft import SupervisedFineTuning
from tunewright.stages.stage import Role

pytestmark = pytest.mark.real
TOLERANCE = 1e-4
NEAR = 1e-5
LENGTHS = (23, 57, 101, 9, 180, 64, 33, 140)
Gradients = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def directory() -> Path:
    from tunewright.models.demo_model import ensure

    return ensure()


def rows(directory: Path) -> list[Example]:
    """Real prose: the first tokens of the licence, cut into eight rows whose second halves are trained."""
    from transformers import AutoTokenizer

    text = (Path(__file__).parents[2] / "LICENSE").read_text()
    ids = np.array(AutoTokenizer.from_pretrained(directory)(text).input_ids, dtype=np.int32)
    examples, start = [], 0
    for number, length in enumerate(LENGTHS):
        row = ids[start : start + length]
        labels = np.where(np.arange(length) < length // 2, -100, row).astype(np.int32)
        examples.append(Example(row, labels, np.array([0, length], dtype=np.int32), number))
        start += length
    return examples


def lora_model(directory: Path, attention: str, dtype: torch.dtype) -> torch.nn.Module:
    """peft's own model with the same fp32 adapter in every dtype; B is not zero, so that A has a gradient."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(directory, attn_implementation=attention, dtype=torch.float32)
    torch.manual_seed(0)
    model = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    return model.to(dtype)


def plain(directory: Path) -> tuple[float, Gradients]:
    """transformers' own loss on the padded batch, in fp32."""
    model = lora_model(directory, "sdpa", torch.float32)
    examples = rows(directory)
    batch = collate_padded(examples, 0)
    labels = pad_sequence([torch.from_numpy(one.labels.astype(np.int64)) for one in examples], batch_first=True, padding_value=-100)
    loss = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss
    loss.backward()
    return float(loss.detach()), gradients(model)


def exactly(directory: Path) -> tuple[float, Gradients]:
    """The mean of transformers' own cross-entropies over all labels, row by row in float64."""
    model = lora_model(directory, "sdpa", torch.float64)
    count, total = sum(int((one.labels != -100).sum()) for one in rows(directory)), 0.0
    for one in rows(directory):
        ids, labels = (torch.from_numpy(part.astype(np.int64)) for part in (one.input_ids, one.labels))
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
        loss = torch.nn.functional.cross_entropy(logits[:-1], labels[1:], reduction="sum") / count
        loss.backward()
        total += float(loss.detach())
    return total, gradients(model)


def ours(directory: Path, flat: bool) -> tuple[float, Gradients]:
    model = lora_model(directory, register() if flat else "sdpa", torch.float32)
    batch = collate_flat(rows(directory)) if flat else collate_padded(rows(directory), 0)
    loss = SupervisedFineTuning().loss({Role.POLICY: model}, batch)
    (loss.sum / loss.count).backward()
    return float(loss.sum.detach()) / loss.count, gradients(model)


def as_a_run_does(directory: Path) -> tuple[float, Gradients]:
    """Ours with every fast path that a run takes if it is told nothing."""
    model, run = lora_model(directory, "sdpa", torch.float32), read_config([]).config
    chosen = apply(run, model.get_base_model())
    told = [line.partition(":")[0] for line in hasten(run, model)]
    assert {"loss", "LoRA", "gated MLPs", "RMSNorm", "rotary positions"} <= set(told)
    assert share_beginnings(run, chosen, model).shares_prefixes
    loss = SupervisedFineTuning().loss({Role.POLICY: model}, collate_flat_shared(rows(directory)))
    (loss.sum / loss.count).backward()
    return float(loss.sum.detach()) / loss.count, gradients(model)


def gradients(model: torch.nn.Module) -> Gradients:
    return {name: weight.grad.double() for name, weight in model.named_parameters() if weight.grad is not None}


def relative(actual: Gradients, expected: Gradients) -> float:
    """||actual - expected|| / ||expected|| over all tensors together."""
    assert actual.keys() == expected.keys()
    difference = sum(float((actual[name] - expected[name]).pow(2).sum()) for name in expected)
    return (difference / sum(float(gradient.pow(2).sum()) for gradient in expected.values())) ** 0.5


def test_loss_and_gradients_equal_plain_transformers_and_peft(directory: Path) -> None:
    """Oracles: transformers + peft in fp32 and in float64 (whose norms and rotations transformers still computes in float32). All
    gradients together agree to 1e-4; single tensors, of which some are nearly zero, to ten times that. With all fast paths the errors are
    no larger than 1e-5, or than transformers' own in fp32."""
    stock_loss, stock = plain(directory)
    exact_loss, exact = exactly(directory)
    steps = [*(ours(directory, flat) for flat in (False, True)), as_a_run_does(directory)]
    for loss, found in steps:
        assert loss == pytest.approx(stock_loss, rel=TOLERANCE)
        assert loss == pytest.approx(exact_loss, rel=TOLERANCE)
        assert relative(found, stock) < TOLERANCE
        assert relative(found, exact) < TOLERANCE
        for name in exact:
            assert relative({name: found[name]}, {name: exact[name]}) < 10 * TOLERANCE, name
    theirs, fast = ((abs(loss / exact_loss - 1), relative(found, exact)) for loss, found in ((stock_loss, stock), steps[-1]))
    print(f"relative error of loss and gradient {fast[0]:.1e}, {fast[1]:.1e}; stock {theirs[0]:.1e}, {theirs[1]:.1e}")
    assert fast[0] <= max(NEAR, theirs[0])
    assert fast[1] <= max(NEAR, theirs[1])

"""One SFT step of the real demo model against plain transformers + peft: eight ragged rows, fp32, to 1e-4 relative."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from tunewright.data.collate import Example, collate_flat, collate_padded
from tunewright.kernels.packed_attention import register
from tunewright.stages.sft import SupervisedFineTuning
from tunewright.stages.stage import Role

pytestmark = pytest.mark.real
TOLERANCE = 1e-4
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


def plain(directory: Path, dtype: torch.dtype) -> tuple[float, Gradients]:
    """transformers' own loss on the padded batch."""
    model = lora_model(directory, "sdpa", dtype)
    examples = rows(directory)
    batch = collate_padded(examples, 0)
    labels = pad_sequence([torch.from_numpy(one.labels.astype(np.int64)) for one in examples], batch_first=True, padding_value=-100)
    loss = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss
    loss.backward()
    return float(loss.detach()), gradients(model)


def ours(directory: Path, flat: bool) -> tuple[float, Gradients]:
    model = lora_model(directory, register() if flat else "sdpa", torch.float32)
    batch = collate_flat(rows(directory)) if flat else collate_padded(rows(directory), 0)
    loss = SupervisedFineTuning().loss({Role.POLICY: model}, batch)
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
    gradients together agree to 1e-4; single tensors, of which some are nearly zero, to ten times that."""
    stock_loss, stock = plain(directory, torch.float32)
    exact_loss, exact = plain(directory, torch.float64)
    for flat in (False, True):
        loss, found = ours(directory, flat)
        assert loss == pytest.approx(stock_loss, rel=TOLERANCE)
        assert loss == pytest.approx(exact_loss, rel=TOLERANCE)
        assert relative(found, stock) < TOLERANCE
        assert relative(found, exact) < TOLERANCE
        for name in exact:
            assert relative({name: found[name]}, {name: exact[name]}) < 10 * TOLERANCE, name

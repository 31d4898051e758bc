"""The path that a run takes if it is told nothing, in the number formats that runs have: how near it comes to exact numbers, and that rows
do not see each other.

Oracle: transformers' own model in float64, one row at a time; beside it the same model in float32, rows padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.engine.test_real_step import Gradients, gradients, relative
from tests.kernels.test_families import FAMILIES, LABELS, PREFIXES, ROWS, TUNINGS, hastened, lines, lively, plain, shape, told
from tests.kernels.test_isolation import MODELS, one_by_one, tiny
from tests.kernels.test_shared_beginnings import row
from tunewright.data.collate import Batch, Example, collate_flat_shared, collate_padded
from tunewright.data.records import IGNORE_INDEX
from tunewright.kernels import output_head
from tunewright.losses.language_modeling import kept_positions
from tunewright.stages.causal_lm import model_inputs
from tunewright.stages.sft import SupervisedFineTuning
from tunewright.stages.stage import Role

NEAR = 1e-5
LARGER = {"vocab_size": 2000, "hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 4, "num_attention_heads": 8,
          "num_key_value_heads": 4, "head_dim": 32, "max_position_embeddings": 512}
LENGTHS = (300, 52, 131, 221, 49, 90)
"""Of rows that begin with the same 48 tokens, and of which as many tokens are trained as come after those."""


class Step(NamedTuple):
    """Mean cross-entropy over the labels, and its gradients."""

    loss: float
    gradients: Gradients

    def error(self, exact: Step) -> tuple[float, float]:
        """Of the loss and of all gradients together, relative."""
        return abs(self.loss - exact.loss) / abs(exact.loss), relative(self.gradients, exact.gradients)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path))


def larger_rows() -> list[Example]:
    rng = np.random.default_rng(2)
    beginning = rng.integers(3, 2000, 48)
    return [row(*beginning, *rng.integers(3, 2000, length - 48), untrained=48, number=number) for number, length in enumerate(LENGTHS)]


def as_loaded(kind: str, dtype: torch.dtype, changes: dict[str, Any]) -> nn.Module:
    """A tiny model as transformers opens it: experts in one grouped product, which there is not in float64."""
    model = tiny(kind, **changes).to(dtype)
    if "num_experts_per_tok" in MODELS.get(kind, {}):
        model.set_experts_implementation("grouped_mm")
    return model


def exactly(model: nn.Module, rows: Sequence[Example], labels: int) -> Step:
    """Rows one by one in float64, with the weights of a model in float32."""
    total, found = one_by_one(model.to(torch.float64), rows)
    return Step(total / labels, {name: gradient / labels for name, gradient in found.items()})


def stock(model: nn.Module, rows: Sequence[Example]) -> Step:
    """Transformers' own loss on the padded batch."""
    batch = collate_padded(rows, 0)
    targets = torch.nn.functional.pad(batch.targets, (1, 0), value=IGNORE_INDEX)[:, :-1]
    loss = model.train()(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=targets, use_cache=False).loss
    loss.backward()
    return Step(float(loss.detach()), gradients(model))


def ours(model: nn.Module, rows: Sequence[Example]) -> Step:
    """The loss of the stage `sft` on rows that share their beginnings."""
    loss = SupervisedFineTuning().loss({Role.POLICY: model}, collate_flat_shared(rows))
    (loss.sum / loss.count).backward()
    return Step(float(loss.sum.detach()) / loss.count, gradients(model))


def assert_as_near_as_stock(kind: str, tuning: str, changes: dict[str, Any], rows: Sequence[Example], labels: int) -> None:
    """The errors of loss and gradient are no larger than 1e-5, or than those of transformers' own code in float32."""
    exact = exactly(lively(plain(tiny(kind, **changes).to(torch.float32), tuning)), rows, labels)
    theirs = stock(lively(plain(as_loaded(kind, torch.float32, changes), tuning)), rows).error(exact)
    fast, chosen = hastened(as_loaded(kind, torch.float32, changes), tuning)
    assert lines(chosen) == told(FAMILIES[kind], tuning, layers=changes.get("num_hidden_layers", 2))
    found = ours(lively(fast), rows).error(exact)
    print(f"relative error of loss and gradient {found[0]:.1e}, {found[1]:.1e}; stock {theirs[0]:.1e}, {theirs[1]:.1e}")
    assert found[0] <= max(NEAR, theirs[0])
    assert found[1] <= max(NEAR, theirs[1])


@pytest.mark.slow
@pytest.mark.parametrize("tuning", TUNINGS)
def test_float32_is_as_near_as_stock(tuning: str) -> None:
    """A Llama of four layers, rows of up to 300 tokens."""
    assert_as_near_as_stock("llama", tuning, LARGER, larger_rows(), sum(length - 48 for length in LENGTHS))


@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family_takes_the_same_paths_in_float32(kind: str, tuning: str) -> None:
    """And is as near to exact numbers as stock."""
    assert_as_near_as_stock(kind, tuning, shape(kind), ROWS, LABELS)


def token_losses(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The loss of each label of the batch, [N], and the row that it belongs to, [N]."""
    head, kept = output_head.of(model), kept_positions(batch.targets)
    assert head is not None and batch.bounds is not None
    hidden = output_head.last_hidden_states(model, model_inputs(batch), kept)[0]
    targets = batch.targets[0, kept]
    trained = targets != IGNORE_INDEX
    owners = torch.bucketize(kept[trained], batch.bounds[1:].long(), right=True)
    return -head.log_probs(hidden[trained], targets[trained]), owners


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "gpt_oss"])
@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize("changed", [1, 3, 6])
def test_other_tokens_in_one_row_leave_the_others_losses_bit_equal(kind: str, tuning: str, dtype: torch.dtype, changed: int) -> None:
    """A row that others continue, one that continues it, one that stands by itself. All tokens go to the same experts: else the changed row
    decides which rows are in an expert's product, and where, which may change the last bit of each."""
    model, chosen = hastened(as_loaded(kind, dtype, shape(kind)), tuning)
    assert lines(chosen) == told(FAMILIES[kind], tuning)
    for name, weight in lively(model).named_parameters():
        if name.endswith("router.weight"):
            nn.init.zeros_(weight)
    rows = list(ROWS)
    ids = rows[changed].input_ids.copy()
    own = slice(12 if PREFIXES[changed] or changed == 1 else 0, None)
    ids[own] = (ids[own] - 3 + 17) % 61 + 3
    rows[changed] = rows[changed]._replace(input_ids=ids, labels=np.where(rows[changed].labels == IGNORE_INDEX, IGNORE_INDEX, ids))
    batches = [collate_flat_shared(one) for one in (ROWS, rows)]
    for batch in batches:
        assert batch.prefixes is not None and batch.prefixes.tolist() == PREFIXES
    (before, owners), (after, _) = (token_losses(model, batch) for batch in batches)
    assert owners.bincount(minlength=7).tolist() == [0, 85, 1, 105, 0, 2, 5]
    assert not torch.isclose(before[owners == changed], after[owners == changed]).all()
    assert torch.equal(before[owners != changed], after[owners != changed])

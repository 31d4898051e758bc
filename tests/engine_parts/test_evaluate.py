"""Evaluation. Oracles: torch's cross_entropy over plain rows, and the identity that layout, batch size and ranks change nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tunewright.data.collate import Example, collate_padded
from tunewright.engine.batches import Loading, Share
from tunewright.engine.evaluate import EvaluationPlan, evaluate, evaluate_sets
from tunewright.errors import InputError, NumericError
from tunewright.runtime import Ranks, launch_ranks
from tunewright.stages.sft import SupervisedFineTuning
from tunewright.stages.stage import Role

LENGTHS = (9, 4, 12, 7, 3)
ROOT = Path(__file__).resolve().parents[2]


class Rows:
    """Ragged rows whose first third is prompt."""

    def __init__(self, lengths: tuple[int, ...], seed: int = 0) -> None:
        draw = np.random.default_rng(seed)
        self.lengths = np.array(lengths, dtype=np.int64)
        self._ids = [draw.integers(1, 30, size=length).astype(np.int32) for length in lengths]

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Example:
        ids = self._ids[index]
        labels = ids.copy()
        labels[: max(1, len(ids) // 3)] = -100
        return Example(ids, labels, np.array([0, len(ids)], dtype=np.int32), index)


def model() -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=30, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, attention_dropout=0.5)).double()


def plan(per_device: int = 2, ranks: Ranks | None = None, accuracy: bool = True) -> EvaluationPlan:
    ranks = ranks or Ranks()
    return EvaluationPlan(Share(per_device, 1, ranks.rank, ranks.world_size), Loading(partial(collate_padded, pad_token_id=0), 0, 60),
                          torch.device("cpu"), ranks, accuracy)


def by_hand(policy: torch.nn.Module, rows: Rows) -> tuple[float, float]:
    """Mean loss and accuracy over trained tokens: each row alone, unpadded, with torch's own cross-entropy."""
    loss, right, count = 0.0, 0, 0
    policy.eval()
    for index in range(len(rows)):
        row = rows[index]
        targets = torch.tensor(row.labels[1:].astype(np.int64))
        with torch.no_grad():
            logits = policy(torch.tensor(row.input_ids[None].astype(np.int64))).logits[0, :-1]
        loss += float(cross_entropy(logits, targets, ignore_index=-100, reduction="sum"))
        right += int((logits.argmax(-1) == targets).sum())
        count += int((targets != -100).sum())
    policy.train()
    return loss / count, right / count


@pytest.mark.parametrize("per_device", [1, 2, 5])
def test_metrics_equal_rows_alone(per_device: int) -> None:
    policy = model()
    metrics = evaluate(SupervisedFineTuning(), {Role.POLICY: policy}, Rows(LENGTHS), plan(per_device))
    loss, accuracy = by_hand(policy, Rows(LENGTHS))
    assert metrics["eval_loss"] == pytest.approx(loss, rel=1e-12)
    assert metrics["eval_accuracy"] == pytest.approx(accuracy, abs=1e-15)
    assert set(metrics) == {"eval_loss", "eval_accuracy", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}


def test_accuracy_only_if_asked() -> None:
    assert "eval_accuracy" not in evaluate(SupervisedFineTuning(), {Role.POLICY: model()}, Rows(LENGTHS), plan(accuracy=False))


def test_training_goes_on_undisturbed() -> None:
    """Random numbers and each module's mode are as before, a frozen part left in evaluation mode included."""
    policy = model().train()
    policy.model.layers[0].eval()  # type: ignore[union-attr, index]
    modes = [module.training for module in policy.modules()]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    evaluate(SupervisedFineTuning(), {Role.POLICY: policy}, Rows(LENGTHS), plan())
    assert [module.training for module in policy.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_several_sets_alone_and_together() -> None:
    """The overall loss is over the trained tokens of all sets, not the mean of their means."""
    policy = model()
    first, second = Rows((9, 4), 1), Rows((12, 7, 3), 2)
    metrics = evaluate_sets(SupervisedFineTuning(), {Role.POLICY: policy}, {"first": first, "second": second}, plan())
    loss_1, loss_2 = by_hand(policy, first)[0], by_hand(policy, second)[0]
    tokens_1, tokens_2 = 6 + 3, 8 + 5 + 2
    assert metrics["eval_first_loss"] == pytest.approx(loss_1, rel=1e-12)
    assert metrics["eval_second_loss"] == pytest.approx(loss_2, rel=1e-12)
    assert metrics["eval_loss"] == pytest.approx((loss_1 * tokens_1 + loss_2 * tokens_2) / (tokens_1 + tokens_2), rel=1e-12)


def test_one_set_needs_no_name() -> None:
    policy = model()
    metrics = evaluate_sets(SupervisedFineTuning(), {Role.POLICY: policy}, {"anything": Rows(LENGTHS)}, plan())
    assert metrics["eval_loss"] == pytest.approx(by_hand(policy, Rows(LENGTHS))[0], rel=1e-12)


def test_a_set_without_trained_tokens_is_refused() -> None:
    with pytest.raises(InputError, match="the evaluation set has no trained token"):
        evaluate(SupervisedFineTuning(), {Role.POLICY: model()}, Rows((1, 1)), plan())


def test_a_loss_that_is_not_finite_names_the_samples() -> None:
    policy = model()
    with torch.no_grad():
        policy.lm_head.weight.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(NumericError, match="the evaluation loss is nan in samples 0, 1"):
        evaluate(SupervisedFineTuning(), {Role.POLICY: policy}, Rows(LENGTHS), plan())


TWO_RANKS = """
import json, sys
from pathlib import Path
from test_evaluate import LENGTHS, Rows, model, plan
from tunewright.engine.evaluate import evaluate
from tunewright.runtime import Ranks, end_process, process_group
from tunewright.stages.sft import SupervisedFineTuning
from tunewright.stages.stage import Role
ranks = Ranks.from_environment()
with process_group(ranks, timeout_s=60):
    metrics = evaluate(SupervisedFineTuning(), {Role.POLICY: model()}, Rows(LENGTHS), plan(2, ranks))
Path(sys.argv[1], f"{ranks.rank}.json").write_text(json.dumps(metrics))
end_process(0)
"""


@pytest.mark.slow
def test_two_ranks_equal_one_to_the_last_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five rows in batches of two: rank 1 has none left in the last round and runs a stand-in. Sums are exact, so == holds."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(Path(__file__).parent)]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = subprocess.run([sys.executable, "-c", TWO_RANKS, str(tmp_path)], timeout=120, capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr
    expected = json.loads((tmp_path / "0.json").read_text())
    assert launch_ranks([sys.executable, "-c", TWO_RANKS, str(tmp_path)], 2) == 0
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert (found["eval_loss"], found["eval_accuracy"]) == (expected["eval_loss"], expected["eval_accuracy"])

"""The auxiliary loss of routers. Oracles: transformers' own `load_balancing_loss_func` of the step as one batch, and sums by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.effects.engine_runs import losses, run
from tunewright.config.losses import LossConfig
from tunewright.data.collate import Example
from tunewright.engine.assemble import collation
from tunewright.engine.batches import Loading, Order, Share, TrainBatches
from tunewright.engine.router_balance import BalancedStage, routers_of
from tunewright.engine.step import Machinery, accumulate, updates_of
from tunewright.errors import InputError
from tunewright.kernels.packed_attention import register
from tunewright.losses.routers import balance_loss, expert_counts, probability_sums
from tunewright.runtime import Ranks
from tunewright.selftest.workspace import Workspace
from tunewright.stages.sft import SupervisedFineTuning
from tunewright.stages.stage import Role

LENGTHS = (5, 17, 9, 2, 30, 11, 3, 21)
WEIGHT = 0.5


def moe(attention: str = "eager", **changes: Any) -> Any:
    import transformers

    torch.manual_seed(4)
    config = transformers.Qwen3MoeConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, num_experts=6, num_experts_per_tok=2, max_position_embeddings=64, pad_token_id=0,
        experts_implementation="eager", **changes)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention)


class Rows:
    """Eight ragged rows of random tokens; all but the first are trained."""

    lengths = np.array(LENGTHS)

    def __len__(self) -> int:
        return len(LENGTHS)

    def __getitem__(self, index: int) -> Example:
        ids = np.random.default_rng(index).integers(3, 96, LENGTHS[index]).astype(np.int32)
        labels = ids.copy()
        labels[0] = -100
        return Example(ids, labels, np.array([0, len(ids)], dtype=np.int32), index)


def plain() -> tuple[float, float, dict[str, torch.Tensor]]:
    """Cross-entropy of all eight rows plus the weighted auxiliary loss, one padded batch through transformers."""
    model = moe()
    batch = collation(False, 0)([Rows()[index] for index in range(8)])
    targets = batch.targets[:, :-1].masked_fill(batch.attention_mask[:, 1:] == 0, -100)
    out = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids, output_router_logits=True)
    total = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), targets.flatten(), reduction="sum")
    loss = total / int((targets != -100).sum()) + WEIGHT * out.aux_loss
    loss.backward()
    return float(loss.detach()), float(out.aux_loss.detach()), {name: weight.grad for name, weight in model.named_parameters()}


def one_step(share: Share, flat: bool) -> tuple[float, float, dict[str, torch.Tensor]]:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    policy = accelerator.prepare(moe(register() if flat else "eager"))
    routers = routers_of(policy, LossConfig(moe_aux_loss_coef=WEIGHT))
    assert routers is not None
    stage = BalancedStage(SupervisedFineTuning(), routers)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.0)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    machinery = Machinery(stage, {Role.POLICY: policy.train()}, optimizer, schedule, accelerator, Ranks(), 0.0)
    window = next(iter(TrainBatches(Rows(), Order(0, by_length=False), share, Loading(collation(flat, 0), 0, 60)).windows(0, 0)))
    (batches,) = list(updates_of(machinery, window, 0))
    count = sum(stage.units(batch) for batch in batches)
    sums = accumulate(machinery, batches, float(count))
    total, parts = sums.metrics["aux_loss"]
    assert parts == pytest.approx(1)
    return sums.loss / count, total, {name: weight.grad for name, weight in policy.named_parameters()}


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(("per_device", "accumulation"), [(8, 1), (4, 2), (2, 4), (3, 3)])
def test_any_split_gives_the_auxiliary_loss_of_the_whole_step(per_device: int, accumulation: int, flat: bool) -> None:
    """In float32, as transformers computes its own: to 1e-5 of the largest gradient."""
    loss, balance, found = one_step(Share(per_device, accumulation, 0, 1), flat)
    expected_loss, expected_balance, expected = plain()
    assert loss == pytest.approx(expected_loss, rel=1e-5) and balance == pytest.approx(expected_balance, rel=1e-5)
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max())), name


def test_the_formula_by_hand() -> None:
    """Two tokens, two experts, one choice each. Probabilities (3/4, 1/4) and (1/2 + e, 1/2 - e): both choose the first, so the loss is
    2 (1 x mean of the first's probabilities); with top_k = 2 every expert is chosen by all, and the loss is 2 x 1 = top_k."""
    logits = torch.tensor([[math.log(3), 0.0], [1e-9, 0.0]], dtype=torch.float64)
    assert expert_counts(logits, 1).tolist() == [2, 0] and probability_sums(logits).tolist() == pytest.approx([1.25, 0.75])
    assert float(balance_loss(expert_counts(logits, 1), probability_sums(logits), 2)) == pytest.approx(1.25)
    assert float(balance_loss(expert_counts(logits, 2), probability_sums(logits), 2)) == pytest.approx(2)
    halves = sum(float(balance_loss(expert_counts(logits, 1), probability_sums(logits[[row]]), 2)) for row in (0, 1))
    assert halves == pytest.approx(1.25)


@pytest.mark.parametrize(("asked", "settings", "weight"), [
    (None, {}, None), (0.3, {}, 0.3), (0.0, {"output_router_logits": True}, None),
    (None, {"output_router_logits": True, "router_aux_loss_coef": 0.02}, 0.02),
    (0.3, {"output_router_logits": True, "router_aux_loss_coef": 0.02}, 0.3)])
def test_whose_weight_it_is(asked: float | None, settings: dict[str, Any], weight: float | None) -> None:
    """The run's, else the model's own where its configuration asks for the loss."""
    found = routers_of(moe(**settings), LossConfig(moe_aux_loss_coef=asked))
    assert (None if found is None else found.weight) == weight


def test_a_model_without_routers_is_refused() -> None:
    import transformers

    with pytest.raises(InputError, match="moe_aux_loss_coef: a llama has no routers"):
        routers_of(transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(
            vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)),
            LossConfig(moe_aux_loss_coef=0.1))


@pytest.mark.slow
@pytest.mark.effect("moe_aux_loss_coef")
@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": True, "use_reentrant_gc": False}, {"finetuning_type": "lora"}])
def test_a_run_logs_and_adds_it(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, changes: dict[str, Any]) -> None:
    """The first loss is the plain one plus the weighted auxiliary loss that is logged beside it."""
    from tests.effects.engine_runs import history
    from tunewright.selftest.tiny import write_model, write_rows

    path = tmp_path_factory.mktemp("moe")
    write_model(path / "model", kind="qwen3_moe")
    write_rows(path / "rows.jsonl", 8)
    workspace = Workspace(path)
    common = {"finetuning_type": "full", "max_steps": 2, "logging_steps": 1, "save_strategy": "no",
              "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, **changes}
    run(workspace, tmp_path / "plain", **common)
    run(workspace, tmp_path / "balanced", moe_aux_loss_coef=0.2, **common)
    first = history(tmp_path / "balanced")[0]
    assert first["aux_loss"] >= 1.9  # near top_k where experts are chosen evenly
    assert first["loss"] == pytest.approx(losses(tmp_path / "plain")[0] + 0.2 * first["aux_loss"], rel=1e-5)
    assert losses(tmp_path / "balanced")[1] != pytest.approx(losses(tmp_path / "plain")[1] + 0.2 * history(
        tmp_path / "balanced")[1]["aux_loss"], rel=1e-9)

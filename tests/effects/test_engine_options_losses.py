"""Label smoothing, z-loss and NEFTune. Oracles: torch's cross_entropy with label_smoothing, (log Z)^2, the formula of arXiv 2310.05914."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.effects.engine_runs import history, losses, resumed_equals_whole, run
from tunewright.data.collate import Batch, Example, collate_flat, collate_padded
from tunewright.data.records import IGNORE_INDEX
from tunewright.engine.neftune import EmbeddingNoise, sequence_key, uniform_noise
from tunewright.engine.state import TrainState
from tunewright.losses.language_modeling import cross_entropy_sum
from tunewright.selftest.workspace import Workspace


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 0.99])
def test_smoothed_loss_and_gradient_are_those_of_torch(smoothing: float) -> None:
    """In float64; ignored targets count for nothing."""
    torch.manual_seed(0)
    logits = torch.randn(3, 7, 11, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 11, (3, 7))
    targets[0, :3] = IGNORE_INDEX
    ours = cross_entropy_sum(logits, targets, smoothing)
    (gradient,) = torch.autograd.grad(ours, logits)
    theirs = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, label_smoothing=smoothing, reduction="sum")
    (expected,) = torch.autograd.grad(theirs, logits)
    assert torch.allclose(ours, theirs, rtol=1e-12) and torch.allclose(gradient, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.slow
@pytest.mark.effect("label_smoothing_factor")
def test_training_is_smoothed_and_evaluation_is_not(workspace: Workspace, tmp_path: Path) -> None:
    """The first training loss is (1 - e) of the plain one and e of the mean over the vocabulary, which for a model that knows nothing
    yet lies close to ln 389; the evaluation before any step is that of the plain run."""
    common = {"max_steps": 2, "logging_steps": 1, "eval_on_start": True, "val_size": 4, "save_strategy": "no"}
    run(workspace, tmp_path / "plain", **common)
    run(workspace, tmp_path / "smooth", label_smoothing_factor=0.9, **common)
    assert history(tmp_path / "plain")[0]["eval_loss"] == history(tmp_path / "smooth")[0]["eval_loss"]
    plain, smooth = losses(tmp_path / "plain"), losses(tmp_path / "smooth")
    assert plain[0] != smooth[0] and smooth[0] == pytest.approx(math.log(389), abs=0.1)


@pytest.mark.slow
@pytest.mark.effect("z_loss_weight")
def test_the_z_loss_is_in_training_and_not_in_evaluation(workspace: Workspace, tmp_path: Path) -> None:
    """The first training loss is the plain one and w (log Z)^2, with log Z close to ln 389 for a model that knows nothing yet; by both
    ways to the loss, which agree to the rounding of float32. The evaluation before any step is that of the plain run."""
    common = {"max_steps": 2, "logging_steps": 1, "eval_on_start": True, "val_size": 4, "save_strategy": "no"}
    for name, changes in {"plain": {}, "z": {"z_loss_weight": 0.1}, "logits": {"z_loss_weight": 0.1, "slow_paths": "loss"}}.items():
        run(workspace, tmp_path / name, **common, **changes)
    assert history(tmp_path / "plain")[0]["eval_loss"] == history(tmp_path / "z")[0]["eval_loss"]
    plain, added = losses(tmp_path / "plain"), losses(tmp_path / "z")
    assert added[0] - plain[0] == pytest.approx(0.1 * math.log(389) ** 2, rel=0.02)
    assert losses(tmp_path / "logits") == pytest.approx(added, rel=1e-5)


@pytest.mark.slow
@pytest.mark.effect("neftune_noise_alpha")
def test_noise_is_in_training_only_and_survives_a_resume(workspace: Workspace, tmp_path: Path) -> None:
    common = {"eval_on_start": True, "eval_dataset": workspace.path / "held_out.jsonl"}
    assert resumed_equals_whole(workspace, tmp_path / "noisy", neftune_noise_alpha=50, **common)
    run(workspace, tmp_path / "plain", logging_steps=1, **common)
    assert history(tmp_path / "noisy")[0]["eval_loss"] == history(tmp_path / "plain")[0]["eval_loss"]
    assert losses(tmp_path / "noisy") != losses(tmp_path / "plain")


@pytest.mark.slow
def test_noise_is_the_same_however_the_batch_is_split(workspace: Workspace, tmp_path: Path) -> None:
    """4 = 2 x 2 = laid end to end: the losses agree to the rounding of float32, those of another seed do not."""
    common = {"neftune_noise_alpha": 50, "max_steps": 3, "logging_steps": 1, "save_strategy": "no", "finetuning_type": "full",
              "data_seed": 1}
    splits = {"4": {}, "2x2": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}, "flat": {"padding_free": True},
              "other": {"seed": 7}}
    for name, changes in splits.items():
        run(workspace, tmp_path / name, **common, **changes)
    whole = losses(tmp_path / "4")
    assert losses(tmp_path / "2x2") == pytest.approx(whole, rel=1e-5) and losses(tmp_path / "flat") == pytest.approx(whole, rel=1e-5)
    assert losses(tmp_path / "other") != pytest.approx(whole, rel=1e-5)


def rows() -> list[Example]:
    lengths = (3, 6, 1)
    return [Example(np.arange(length, dtype=np.int32) + number, np.arange(length, dtype=np.int32), np.array([0, length], dtype=np.int32),
                    number) for number, length in enumerate(lengths)]


@pytest.mark.parametrize("flat", [False, True])
def test_noise_follows_the_paper(flat: bool) -> None:
    """Each row's noise is uniform in +-alpha / sqrt(L d) with its own length L, and padding has none; restated token by token."""
    embedding = torch.nn.Embedding(20, 16)
    noise = EmbeddingNoise(embedding, alpha=5.0, seed=3)
    noise.begin(TrainState(global_step=8))
    batch = collate_flat(rows()) if flat else collate_padded(rows(), 0)
    clean = torch.nn.functional.embedding(batch.input_ids, embedding.weight)
    with noise.over(batch):
        found = (embedding(batch.input_ids) - clean).detach()
    place = 0
    for number, row in enumerate(rows()):
        length = len(row.input_ids)
        mine = found[0, place:place + length] if flat else found[number, :length]
        place += length
        bound = 5.0 / math.sqrt(length * 16)
        expected = uniform_noise(sequence_key(3, 8, row.input_ids), (length, 16), 5.0, torch.device("cpu"))
        assert torch.allclose(mine, expected, atol=1e-6) and 0.8 * bound < float(expected.abs().max()) <= bound
        assert flat or not found[number, length:].any()
    embedding.eval()
    with noise.over(batch):
        assert torch.equal(embedding(batch.input_ids), clean)


def test_noise_is_uniform_and_fresh_in_each_step_row_and_seed() -> None:
    """Mean 0 and variance bound^2 / 3 over 200,000 draws, within five standard errors."""
    drawn = uniform_noise(1, (1000, 200), 5.0, torch.device("cpu")).double()
    bound = 5.0 / math.sqrt(200_000)
    assert abs(float(drawn.mean())) < 5 * bound / math.sqrt(3 * 200_000)
    assert float(drawn.var()) == pytest.approx(bound**2 / 3, rel=0.01)
    tokens = np.arange(5)
    keys = [sequence_key(0, 0, tokens), sequence_key(1, 0, tokens), sequence_key(0, 1, tokens), sequence_key(0, 0, tokens + 1)]
    assert len(set(keys)) == 4


def test_outside_a_training_pass_nothing_is_added() -> None:
    """Generation and other passes that no stage announced."""
    embedding = torch.nn.Embedding(20, 16)
    EmbeddingNoise(embedding, alpha=5.0, seed=3)
    batch: Batch = collate_padded(rows(), 0)
    assert torch.equal(embedding(batch.input_ids), torch.nn.functional.embedding(batch.input_ids, embedding.weight))

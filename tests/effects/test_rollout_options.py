"""The parameters of ppo and grpo through whole runs. Oracles: relations between logged numbers and written answers that follow from the
papers' formulas, worked out here from the rewards and lengths of `rollouts.jsonl`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from tests.effects.engine_runs import history, run
from tunewright.selftest.tiny import write_model, write_rows
from tunewright.selftest.workspace import Workspace

pytestmark = pytest.mark.slow

REWARDS = """
def share(completions):
    return [text.count("a") / max(len(text), 1) for text in completions]

def tenfold(completions):
    return [10 * one for one in share(completions)]

def thousand(completions):
    return [1000.0 for _ in completions]

def nothing(completions):
    return [0.0 for _ in completions]
"""
COMMON = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 8, "max_steps": 1, "logging_steps": 1, "save_strategy": "no",
          "sample_log_steps": 1, "per_device_train_batch_size": 4, "warmup_ratio": 0, "include_num_input_tokens_seen": True}
PPO = {"stage": "ppo", "ppo_epochs": 1, **COMMON}
GRPO = {"stage": "grpo", "num_generations": 4, **COMMON}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    path = tmp_path_factory.mktemp("rollouts")
    write_model(path / "model")
    write_model(path / "other", seed=7)
    write_rows(path / "rows.jsonl", 12, longest=5)
    (path / "rewards.py").write_text(REWARDS)
    return Workspace(path)


def first(workspace: Workspace, output_dir: Path, reward: str = "share", **changes: Any) -> dict[str, Any]:
    """The first entry of the log."""
    run(workspace, output_dir, reward_funcs=f"{workspace.path / 'rewards.py'}:{reward}", **changes)
    return history(output_dir)[0]


def written(output_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output_dir / "rollouts.jsonl").read_text().splitlines()]


@pytest.mark.effect("ppo_epochs", "ppo_buffer_size")
def test_updates_of_a_step(workspace: Workspace, tmp_path: Path) -> None:
    """Three passes train three times the tokens of one; two mini-batches a step make three steps of twelve rows instead of six."""
    once, thrice = (first(workspace, tmp_path / str(number), **{**PPO, "ppo_epochs": number}) for number in (1, 3))
    assert thrice["num_input_tokens_seen"] == 3 * once["num_input_tokens_seen"]
    for size, steps in ((1, 6), (2, 3)):
        root = tmp_path / f"buffer{size}"
        first(workspace, root, **{**PPO, "per_device_train_batch_size": 2, "max_steps": -1, "num_train_epochs": 1, "ppo_buffer_size": size})
        assert [len([line for line in written(root) if line["step"] == step]) for step in range(1, steps + 1)] == [12 // steps] * steps


@pytest.mark.effect("ppo_score_norm")
def test_scaled_scores(workspace: Workspace, tmp_path: Path) -> None:
    """Scores that are normalised do not depend on their unit."""
    found = {(reward, normed): first(workspace, tmp_path / f"{reward}{normed}", reward, **{**PPO, "ppo_score_norm": normed})["value_loss"]
             for reward in ("share", "tenfold") for normed in (True, False)}
    assert found["share", True] == pytest.approx(found["tenfold", True], rel=1e-4)
    assert found["tenfold", False] > 2 * found["share", False]


@pytest.mark.effect("ppo_target", "ppo_horizon", "ppo_init_kl_coef", "ppo_adap_kl_ctrl")
def test_the_penalty_adapts(workspace: Workspace, tmp_path: Path) -> None:
    """Against another model as reference: above the target the weight grows by a fifth of answers / horizon, below it shrinks by that
    (Ziegler et al. 2019, section 2.2, with errors beyond the clip)."""
    common = {**PPO, "max_steps": 2, "ref_model": workspace.path / "other", "ppo_init_kl_coef": 0.3, "ppo_horizon": 40}
    for name, changes, factor in (("above", {"ppo_target": 1e-6}, 1 + 0.2 * 4 / 40), ("below", {"ppo_target": 1e6}, 1 - 0.2 * 4 / 40),
                                  ("slow", {"ppo_target": 1e6, "ppo_horizon": 400}, 1 - 0.2 * 4 / 400),
                                  ("fixed", {"ppo_adap_kl_ctrl": False}, 1.0)):
        told = first(workspace, tmp_path / name, **{**common, **changes})
        second = history(tmp_path / name)[1]
        assert told["kl_coef"] == pytest.approx(0.3) and second["kl_coef"] == pytest.approx(0.3 * factor, rel=1e-9)
        assert told["kl"] > 1e-3


@pytest.mark.effect("ppo_gamma", "ppo_lam", "ppo_vf_coef", "ppo_whiten_rewards")
def test_returns(workspace: Workspace, tmp_path: Path) -> None:
    """Each answer is worth 1000, next to which values and divergence are nothing. Undiscounted, every token's return is that, and the value
    loss half its square; with a discount to next to nothing, or a decay of 0, only the last token's is. The loss adds up as it says."""
    common = {**PPO, "ppo_lam": 1.0, "ppo_vf_coef": 0.25}
    plain = first(workspace, tmp_path / "plain", "thousand", **common)
    assert plain["value_loss"] == pytest.approx(0.5e6, rel=0.01)
    assert plain["loss"] == pytest.approx(plain["policy_loss"] + 0.25 * plain["value_loss"], rel=1e-5)
    length = mean(line["tokens"] for line in written(tmp_path / "plain"))
    assert length > 1
    for name, changes in {"gamma": {"ppo_gamma": 1e-6}, "lam": {"ppo_lam": 0.0}}.items():
        last_alone = first(workspace, tmp_path / name, "thousand", **{**common, **changes})
        assert last_alone["value_loss"] == pytest.approx(0.5e6 / length, rel=0.01)
    white = first(workspace, tmp_path / "white", "thousand", **{**common, "ppo_gamma": 1e-6, "ppo_whiten_rewards": True})
    ends = [float(place + 1 == line["tokens"]) * 1000 for line in written(tmp_path / "white") for place in range(line["tokens"])]
    whitened = [(one - mean(ends)) / stdev(ends) + mean(ends) for one in ends]
    assert white["value_loss"] == pytest.approx(0.5 * mean(one**2 for one in whitened), rel=0.01)


@pytest.mark.effect("ppo_cliprange", "ppo_cliprange_value")
def test_clipping(workspace: Workspace, tmp_path: Path) -> None:
    """Two passes: next to no range clips tokens in the second, a wide one none; a value that may not move costs what it did."""
    common = {**PPO, "ppo_epochs": 2, "learning_rate": 0.02, "finetuning_type": "full", "ppo_vf_coef": 1.0}
    narrow, wide = (first(workspace, tmp_path / f"clip{size}", **{**common, "ppo_cliprange": size}) for size in (1e-6, 0.999))
    assert narrow["clip_fraction"] > 0.1 and wide["clip_fraction"] < 0.5 * narrow["clip_fraction"]
    start = first(workspace, tmp_path / "start", "thousand", **{**common, "ppo_epochs": 1})["value_loss"]
    held, free = (first(workspace, tmp_path / f"value{size}", "thousand", **{**common, "ppo_cliprange_value": size})["value_loss"]
                  for size in (1e-6, 1e6))
    assert held == pytest.approx(start, rel=1e-6) and free < start * (1 - 1e-5)


def advantages(groups: list[list[dict[str, Any]]], scale: str) -> list[list[float]]:
    """From the written rewards."""
    every = [line["reward"] for group in groups for line in group]
    found = []
    for group in groups:
        rewards = [line["reward"] for line in group]
        divisor = {"group": stdev(rewards) + 1e-4, "batch": stdev(every) + 1e-4, "none": 1.0}[scale]
        found.append([(reward - mean(rewards)) / divisor for reward in rewards])
    return found


@pytest.mark.effect("num_generations", "grpo_loss_type", "scale_rewards")
@pytest.mark.parametrize(("kind", "scale"), [("grpo", "group"), ("dapo", "group"), ("dapo", "batch"), ("dapo", "none"), ("dr_grpo", "none"),
                                             ("bnpo", "group")])
def test_losses_of_a_group(workspace: Workspace, tmp_path: Path, kind: str, scale: str) -> None:
    """All ratios are 1 in a single update: the loss is minus the advantages, weighted by lengths as the variant says. One prompt in each
    of two micro-batches; a token in 389 ends an answer."""
    common = {**GRPO, "num_generations": 5, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2,
              "max_new_tokens": 160}
    told = first(workspace, tmp_path, **{**common, "grpo_loss_type": kind, "scale_rewards": scale})
    lines = written(tmp_path)
    groups = [lines[:5], lines[5:]]
    assert len(lines) == 10 and all(len({line["sample"] for line in group}) == 1 for group in groups)
    worth, sizes = advantages(groups, scale), [[line["tokens"] for line in group] for group in groups]
    sums = [sum(one * size for one, size in zip(row, lengths, strict=True)) for row, lengths in zip(worth, sizes, strict=True)]
    tokens = [sum(lengths) for lengths in sizes]
    wanted = {"grpo": -mean(one for row in worth for one in row), "dapo": -sum(sums) / sum(tokens), "dr_grpo": -sum(sums) / (10 * 160),
              "bnpo": -mean(one / size for one, size in zip(sums, tokens, strict=True))}[kind]
    assert told["loss"] == pytest.approx(wanted, rel=1e-4, abs=1e-6) and (kind == "grpo" or abs(wanted) > 1e-5)
    assert told["reward"] == pytest.approx(mean(line["reward"] for line in lines), rel=1e-6)
    assert told["reward_std"] == pytest.approx(mean(stdev(line["reward"] for line in group) for group in groups), rel=1e-6)
    assert told["completion_length"] == mean(line["tokens"] for line in lines)
    assert told["missing_eos"] == mean(not line["ended"] for line in lines)


@pytest.mark.effect("num_iterations", "epsilon", "epsilon_high", "importance_sampling_level")
def test_several_updates_on_a_group(workspace: Workspace, tmp_path: Path) -> None:
    """Three updates train three times the tokens. With next to no range tokens are clipped from the second on, and fewer of them if
    epsilon_high is wide; the ratio of a whole answer is another one."""
    common = {**GRPO, "learning_rate": 0.01, "finetuning_type": "full"}
    once = first(workspace, tmp_path / "once", **common)
    thrice = first(workspace, tmp_path / "thrice", **common, num_iterations=3)
    assert once["clip_fraction"] == 0 and thrice["num_input_tokens_seen"] == 3 * once["num_input_tokens_seen"]
    narrow = first(workspace, tmp_path / "narrow", **common, num_iterations=3, epsilon=1e-6)
    wider = first(workspace, tmp_path / "wider", **common, num_iterations=3, epsilon=1e-6, epsilon_high=1e6)
    assert narrow["clip_fraction"] > wider["clip_fraction"] > 0 and narrow["clip_fraction"] > thrice["clip_fraction"]
    whole = first(workspace, tmp_path / "whole", **common, num_iterations=3, importance_sampling_level="sequence")
    assert whole["reward"] == thrice["reward"] and whole["loss"] != thrice["loss"]


@pytest.mark.effect("grpo_beta", "kl_estimator")
def test_the_divergence_of_a_group(workspace: Workspace, tmp_path: Path) -> None:
    """Against another model, over all tokens alike: twice the weight adds the logged divergence once more. Of the estimators, k2 is at
    least half the square of k1's mean (Jensen), and k3 is never negative."""
    common = {**GRPO, "ref_model": workspace.path / "other", "grpo_loss_type": "dapo"}
    one, two = (first(workspace, tmp_path / str(beta), **common, grpo_beta=beta) for beta in (0.1, 0.2))
    assert one["kl"] == two["kl"] > 1e-3 and two["loss"] - one["loss"] == pytest.approx(0.1 * one["kl"], rel=1e-3)
    found = {kind: first(workspace, tmp_path / kind, **common, grpo_beta=0.1, kl_estimator=kind)["kl"] for kind in ("k1", "k2", "k3")}
    assert found["k3"] == one["kl"] and len(set(found.values())) == 3 and found["k2"] >= found["k1"]**2 / 2


@pytest.mark.effect("missing_eos_penalty", "rollout_batch_size")
@pytest.mark.parametrize("stage", [PPO, GRPO], ids=lambda stage: stage["stage"])
def test_answers_and_their_ends(
    workspace: Workspace, tmp_path: Path, stage: dict[str, Any], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is taken off is taken off answers without an end alone; three answers at a time are never four."""
    from transformers import GenerationMixin

    sizes, real = [], GenerationMixin.generate

    def generate(*arguments: Any, **named: Any) -> Any:
        sizes.append(len(named["input_ids"]))
        return real(*arguments, **named)

    monkeypatch.setattr(GenerationMixin, "generate", generate)
    first(workspace, tmp_path, **stage, missing_eos_penalty=0.5, rollout_batch_size=3)
    lines = written(tmp_path)
    assert max(sizes) == 3 and sum(sizes) == len(lines)
    assert all(line["reward"] == pytest.approx(line["scores"]["share"] - 0.5 * (not line["ended"])) for line in lines)
    assert any(not line["ended"] for line in lines) and not math.isnan(history(tmp_path)[0]["loss"])

"""Whole runs of dpo and kto on a tiny model: what they learn, log and draw; killed, they go on bit for bit; evaluation of the result."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.effects.engine_runs import history, run
from tunewright.errors import InputError
from tunewright.selftest.killing import KILLED, Case, Server
from tunewright.selftest.pairs import write_pairs
from tunewright.selftest.rows import write_feedback
from tunewright.selftest.settling import copied, go_on, judged
from tunewright.selftest.tiny import write_model
from tunewright.selftest.workspace import Workspace, results

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    path = tmp_path_factory.mktemp("preferences")
    write_model(path / "model")
    for name, count, seed in (("rows", 22, 0), ("many", 160, 0), ("held_out", 40, 1)):
        write_feedback(write_pairs(path / f"{name}.jsonl", count, seed=seed), path / f"{name}_marked.jsonl")
    return Workspace(path)


def data(workspace: Workspace, stage: str, name: str) -> Path:
    return workspace.path / f"{name}{'_marked' if stage == 'kto' else ''}.jsonl"


def measured(output_dir: Path, metric: str) -> list[float]:
    return [entry[metric] for entry in history(output_dir) if metric in entry]


@pytest.mark.parametrize(("loss", "kind"), [
    ("sigmoid", "lora"), ("sigmoid", "full"), ("ipo", "freeze"), ("orpo", "full"), ("simpo", "full"), ("kto_pair", "full")])
def test_held_out_preferences_are_learnt(workspace: Workspace, tmp_path: Path, loss: str, kind: str) -> None:
    """Which of two answers is chosen follows from its words; of 40 pairs that were not trained, most rewards come to say so."""
    beta = 2.0 if loss == "simpo" else 0.1
    run(workspace, tmp_path, stage="dpo", pref_loss=loss, pref_beta=beta, finetuning_type=kind, dataset=data(workspace, "dpo", "many"),
        eval_dataset=data(workspace, "dpo", "held_out"), num_train_epochs=3, learning_rate=0.003, eval_strategy="epoch", eval_on_start=True,
        save_strategy="no", plot_loss=True)
    found = measured(tmp_path, "eval_rewards/accuracies")
    assert found[0] < 0.75 and found[-1] > 0.85, found
    assert (tmp_path / "training_rewards_accuracies.png").stat().st_size > 1000
    assert {"rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected"} <= set(
        history(tmp_path)[-2])


def test_marked_answers_are_told_apart(workspace: Workspace, tmp_path: Path) -> None:
    """Rewards of held-out good answers rise above those of bad ones; both are 0 at the start."""
    run(workspace, tmp_path, stage="kto", dataset=data(workspace, "kto", "many"), eval_dataset=data(workspace, "kto", "held_out"),
        finetuning_type="full", num_train_epochs=3, learning_rate=0.003, eval_strategy="epoch", eval_on_start=True, save_strategy="no")
    good, bad = measured(tmp_path, "eval_rewards/chosen"), measured(tmp_path, "eval_rewards/rejected")
    assert good[0] == pytest.approx(0, abs=1e-5) and bad[0] == pytest.approx(0, abs=1e-5)
    assert good[-1] - bad[-1] > 0.5, (good, bad)
    assert "eval_kl" in history(tmp_path)[0] and measured(tmp_path, "eval_loss")[-1] < 0.45


@pytest.mark.parametrize(("stage", "changes"), [
    ("dpo", {"lora_dropout": 0.2}), ("dpo", {"finetuning_type": "full", "precompute_ref_log_probs": False, "pref_loss": "ipo"}),
    ("kto", {"finetuning_type": "full"}), ("kto", {"per_device_train_batch_size": 2, "precompute_ref_log_probs": False})])
def test_a_killed_run_ends_as_if_it_had_not_been(
    kill_server: Server, workspace: Workspace, tmp_path: Path, stage: str, changes: dict[str, Any],
) -> None:
    """Inside the eleventh step, in the second epoch, after two checkpoints: weights, optimizer and all that was logged, the rewards among
    it; with a reference that was asked beforehand, and with one that is asked in each step. Batches of two are those of two ranks.
    Between steps: `selftest.exactness`."""
    scenario = "train" if "per_device_train_batch_size" not in changes else "train_on_two_ranks"
    settings = workspace.settings(tmp_path / "run", stage=stage, dataset=data(workspace, stage, "rows"), **changes)
    copied(kill_server, scenario, settings, tmp_path / "copies", 0, (10,))
    found = results(tmp_path / "run")
    assert go_on(kill_server, scenario, settings, tmp_path / "copies" / "step-10") == found
    told = {"dpo": "rewards/margins", "kto": "kl"}[stage]
    assert any(told in entry for entry in found["state"]["log_history"])


def test_killed_at_the_numbers_of_the_reference(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    """At every operation on their file and right after the last; and the process itself, before there is a checkpoint."""
    common = {"stage": "dpo", "dataset": data(workspace, "dpo", "rows"), "num_train_epochs": 1}
    settings = workspace.settings(tmp_path / "run", **common)
    operations = copied(kill_server, "train", settings, tmp_path / "copies")
    expected = results(tmp_path / "run")
    places = [number for number, one in enumerate(operations, start=1) if "reference_logps" in one]
    assert places
    chosen = {name: tmp_path / "copies" / name for name in map(str, range(places[0], places[-1] + 2))}
    assert [found for found in judged(kill_server, "train", settings, chosen, expected) if found[1]] == []
    settings = workspace.settings(tmp_path / "early", **common)
    assert kill_server.run(Case("train", {"settings": settings, "stop_after": 2}, settings["output_dir"])).code == KILLED
    assert kill_server.run(Case("train", {"settings": settings}, settings["output_dir"])).code == 0
    assert results(tmp_path / "early") == expected


@pytest.mark.parametrize(("stage", "changes"), [
    ("kto", {}), ("kto", {"precompute_ref_log_probs": False}), ("dpo", {"precompute_ref_log_probs": False})])
def test_two_ranks_train_what_one_does(
    kill_server: Server, workspace: Workspace, tmp_path: Path, stage: str, changes: dict[str, Any],
) -> None:
    """Every logged number, to the rounding of float32: kto takes its divergence over both ranks."""
    found = []
    for scenario, rows in (("train", 4), ("train_on_two_ranks", 2)):
        settings = workspace.settings(tmp_path / scenario, stage=stage, dataset=data(workspace, stage, "rows"), logging_steps=1,
                                      per_device_train_batch_size=rows, **changes)
        outcome = kill_server.run(Case(scenario, {"settings": settings}, settings["output_dir"]))
        assert outcome.code == 0, outcome.output
        found.append(results(tmp_path / scenario)["state"]["log_history"])
    assert len(found[0]) == 12
    for ours, theirs in zip(*found, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("changes", [
    {"gradient_checkpointing": True}, {"gradient_checkpointing": True, "use_reentrant_gc": True, "precompute_ref_log_probs": False},
    {"flash_attn": "disabled"}, {"padding_free": False}, {"pure_bf16": True, "finetuning_type": "full"},
    {"add_special_tokens": "<zz>"}, {"add_special_tokens": "<zz>", "finetuning_type": "full", "precompute_ref_log_probs": False},
    {"train_from_scratch": True, "finetuning_type": "full", "precompute_ref_log_probs": False}])
@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_a_run_starts_at_its_reference(workspace: Workspace, tmp_path: Path, stage: str, changes: dict[str, Any]) -> None:
    """Identity: the first loss is ln 2, or half of the weights, however the rows are laid out and the reference is opened."""
    run(workspace, tmp_path, stage=stage, dataset=data(workspace, stage, "rows"), max_steps=2, logging_steps=1, save_strategy="no",
        learning_rate=0.001, **changes)
    first, second = (entry["loss"] for entry in history(tmp_path)[:2])
    assert first == pytest.approx({"dpo": math.log(2), "kto": 0.5}[stage], abs=2e-5)
    assert second != first


def test_a_stream_of_pairs_asks_its_reference(workspace: Workspace, tmp_path: Path) -> None:
    """Its rows are not known beforehand: nothing is kept, and the start is ln 2."""
    run(workspace, tmp_path, stage="dpo", dataset=data(workspace, "dpo", "rows"), max_steps=2, logging_steps=1, streaming=True,
        save_strategy="no")
    assert history(tmp_path)[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert not (tmp_path / "reference_logps.safetensors").exists()


def test_the_best_by_its_rewards_is_kept(workspace: Workspace, tmp_path: Path) -> None:
    """Metrics of the stage decide, with and without their prefix."""
    held_out = data(workspace, "dpo", "held_out")
    run(workspace, tmp_path, stage="dpo", dataset=data(workspace, "dpo", "rows"), eval_dataset=held_out, eval_strategy="epoch",
        save_strategy="epoch", load_best_model_at_end=True, metric_for_best_model="rewards/margins", num_train_epochs=3)
    margins = measured(tmp_path, "eval_rewards/margins")
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    assert state["best_metric"] == max(margins)


def test_evaluation_by_command(workspace: Workspace, tmp_path: Path) -> None:
    """`eval` of the result gives the figures of the last evaluation in training; of a model without adapter it asks for a reference."""
    from tunewright.cli import main

    held_out = data(workspace, "dpo", "held_out")
    metrics = run(workspace, tmp_path / "lora", stage="dpo", dataset=data(workspace, "dpo", "rows"), eval_dataset=held_out,
                  eval_strategy="epoch", do_eval=True)
    words = ["stage=dpo", f"eval_dataset={held_out}", f"output_dir={tmp_path / 'again'}", "data_cache_dir=none"]
    assert main(["eval", str(tmp_path / "lora"), *words]) == 0
    again = json.loads((tmp_path / "again" / "eval_results.json").read_text())
    last = [entry for entry in history(tmp_path / "lora") if "eval_loss" in entry][-1]
    for name in ("eval_loss", "eval_rewards/margins", "eval_rewards/accuracies", "eval_logps/chosen"):
        assert again[name] == pytest.approx(last[name], rel=1e-4) and metrics[name] == pytest.approx(last[name], rel=1e-4)
    assert main(["eval", str(workspace.path / "model"), *words]) == InputError.exit_code
    assert main(["eval", str(workspace.path / "model"), f"ref_model={workspace.path / 'model'}", *words]) == 0
    again = json.loads((tmp_path / "again" / "eval_results.json").read_text())
    assert again["eval_loss"] == pytest.approx(0.6931, abs=1e-4)

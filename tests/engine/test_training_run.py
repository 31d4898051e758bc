"""Whole runs of a tiny model, in this process: what they learn, log, keep and leave behind."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tunewright.commands.train import train
from tunewright.dialects.read import read_config
from tunewright.errors import StorageError
from tunewright.selftest.workspace import Workspace, results

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.make(tmp_path_factory.mktemp("runs"))


@pytest.fixture(autouse=True)
def quiet_random() -> Iterator[None]:
    """Runs seed the process's generators; other tests must not notice."""
    with torch.random.fork_rng():
        yield


def run(workspace: Workspace, output_dir: Path, *words: str, **changes: Any) -> dict[str, float]:
    settings = workspace.settings(output_dir, **changes)
    reading = read_config([*words, *(f"{name}={value}" for name, value in settings.items())], purpose="train").resolve()
    return train(reading.config)


def history(output_dir: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((output_dir / "trainer_state.json").read_text())["log_history"]
    return found


def test_full_tuning_learns_its_rows(workspace: Workspace, tmp_path: Path) -> None:
    """The task is to write words backwards; memorising 22 rows takes the loss from ln(389) = 5.96 to near zero."""
    run(workspace, tmp_path, finetuning_type="full", num_train_epochs=60, learning_rate=0.005, save_strategy="no", logging_steps=1)
    losses = [entry["loss"] for entry in history(tmp_path) if "loss" in entry]
    assert losses[0] == pytest.approx(math.log(389), abs=0.2)
    assert losses[-1] < 0.1
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.effect("do_eval", "eval_strategy", "plot_loss", "report_to")
def test_what_a_run_leaves(workspace: Workspace, tmp_path: Path) -> None:
    """The names that other tools look for, and an adapter that plain peft opens to the same logits as our own opening."""
    metrics = run(workspace, tmp_path, val_size=4, do_eval=True, plot_loss=True, eval_strategy="epoch", report_to="tensorboard")
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "all_results.json", "chat_template.jinja",
        "data_audit.json", "data_audit.jsonl", "eval_results.json", "run.json", "runs", "tokenizer.json",
        "train_results.json", "trainer_log.jsonl", "trainer_state.json",
        "training_loss.png", "training_eval_loss.png"}
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    assert json.loads((tmp_path / "all_results.json").read_text()).keys() >= {"train_loss", "eval_loss", "train_tokens_per_second"}
    assert metrics["epoch"] == 2.0
    last = [entry["eval_loss"] for entry in history(tmp_path) if "eval_loss" in entry][-1]
    assert metrics["eval_loss"] == pytest.approx(last, rel=1e-6)

    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from tunewright.inference.opening import open_model

    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(workspace.path / "model"), tmp_path).eval()
    ours = open_model(read_config([f"model_name_or_path={tmp_path}"], purpose="chat").config)
    ids = torch.tensor([[5, 17, 300, 8]])
    with torch.no_grad():
        assert torch.equal(plain(input_ids=ids).logits, ours.model(input_ids=ids).logits)
    run(workspace, tmp_path / "bare", plot_loss=False)
    assert not list((tmp_path / "bare").glob("*.png"))


@pytest.mark.effect("load_best_model_at_end", "early_stopping_patience", "eval_steps")
def test_early_stopping_keeps_the_best_weights(workspace: Workspace, tmp_path: Path) -> None:
    """Memorising makes the held-out loss rise at last: the run stops two evaluations later, with the weights of the best."""
    run(workspace, tmp_path, finetuning_type="full", num_train_epochs=200, learning_rate=0.02, eval_strategy="steps", eval_steps=6,
        save_steps=6, val_size=4, load_best_model_at_end=True, early_stopping_patience=2, save_total_limit=2)
    evaluations = {entry["step"]: entry["eval_loss"] for entry in history(tmp_path) if "eval_loss" in entry}
    best = min(evaluations, key=evaluations.__getitem__)
    assert list(evaluations)[-3:] == [best, best + 6, best + 12]
    assert max(evaluations) < 1000

    from safetensors.torch import load_file

    kept = load_file(tmp_path / f"checkpoint-{best}" / "model.safetensors")
    final = load_file(tmp_path / "model.safetensors")
    assert kept.keys() == final.keys() and all(torch.equal(final[name], tensor) for name, tensor in kept.items())


def test_llamafactory_file_trains_bit_for_bit_like_the_native_one(workspace: Workspace, tmp_path: Path) -> None:
    """The same run in both vocabularies, LLaMA-Factory's defaults written out in the native one."""
    common = {"model_name_or_path": str(workspace.path / "model"), "dataset": str(workspace.path / "rows.jsonl"),
              "max_steps": 5, "logging_steps": 1, "save_strategy": "no", "data_cache_dir": "none", "disable_tqdm": True}
    theirs = tmp_path / "theirs.json"
    shared = {name: value for name, value in common.items() if name != "data_cache_dir"}
    theirs.write_text(json.dumps({**shared, "do_train": True, "output_dir": str(tmp_path / "a"), "warmup_ratio": 0.1}))
    ours = tmp_path / "ours.json"
    ours.write_text(json.dumps({
        **common, "output_dir": str(tmp_path / "b"), "warmup_ratio": 0.1, "cutoff_len": 1024, "per_device_train_batch_size": 8,
        "learning_rate": 5e-5, "lr_scheduler_type": "linear", "optim": "adamw_torch", "gradient_checkpointing": True,
        "use_reentrant_gc": True, "plot_loss": False}))
    for file, dialect in ((theirs, "llamafactory"), (ours, "native")):
        reading = read_config([str(file)], purpose="train").resolve()
        assert reading.dialect == dialect
        train(reading.config)
    for name in ("loss", "grad_norm", "learning_rate"):
        assert [entry[name] for entry in history(tmp_path / "a")] == [entry[name] for entry in history(tmp_path / "b")]
    assert (tmp_path / "a" / "adapter_model.safetensors").read_bytes() == (tmp_path / "b" / "adapter_model.safetensors").read_bytes()


def test_a_finished_run_is_not_trained_again(workspace: Workspace, tmp_path: Path) -> None:
    """The same command once more finds nothing to do and leaves the same results."""
    run(workspace, tmp_path)
    before, figures = results(tmp_path), json.loads((tmp_path / "train_results.json").read_text())
    run(workspace, tmp_path)
    again = json.loads((tmp_path / "train_results.json").read_text())
    assert results(tmp_path) == before
    for name in ("train_loss", "epoch", "total_tokens"):
        assert again[name] == figures[name]


@pytest.mark.effect("num_train_epochs", "max_steps")
@pytest.mark.parametrize(("changes", "steps"), [({"max_steps": 4}, 4), ({"num_train_epochs": 0.5}, 3), ({"num_train_epochs": 1.01}, 7)])
def test_length_of_a_run(workspace: Workspace, tmp_path: Path, changes: dict[str, Any], steps: int) -> None:
    """Six steps an epoch: half of it is three, 1.01 of it begins a seventh."""
    run(workspace, tmp_path, **changes)
    assert json.loads((tmp_path / "trainer_state.json").read_text())["global_step"] == steps


@pytest.mark.effect("eval_on_start", "logging_first_step", "predict_with_generate")
def test_evaluation_first_and_first_log(workspace: Workspace, tmp_path: Path) -> None:
    """eval_on_start logs before step 1, logging_first_step after it, generated answers are scored when asked for."""
    run(workspace, tmp_path, eval_on_start=True, logging_first_step=True, val_size=4, max_steps=3, logging_steps=100,
        predict_with_generate=True, max_new_tokens=4)
    entries = history(tmp_path)
    assert [entry["step"] for entry in entries] == [0, 1, 3]
    assert {"eval_loss", "eval_rouge-1", "eval_bleu-4", "eval_exact_match"} <= entries[0].keys()


def test_a_damaged_best_checkpoint_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    """One bit flipped in the best weights after the run: running again must not load them without a word."""
    changes = {"eval_strategy": "steps", "eval_steps": 3, "val_size": 4, "load_best_model_at_end": True, "greater_is_better": True,
               "metric_for_best_model": "accuracy", "compute_accuracy": True, "save_total_limit": 5}
    run(workspace, tmp_path, **changes)
    best = json.loads((tmp_path / "trainer_state.json").read_text())["best_global_step"]
    assert best < 12
    weights = tmp_path / f"checkpoint-{best}" / "adapter_model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(StorageError, match=r"best checkpoint cannot be loaded: adapter_model.safetensors does not have the sha256"):
        run(workspace, tmp_path, **changes)


def test_going_back_sets_later_checkpoints_aside(workspace: Workspace, tmp_path: Path) -> None:
    """From step 9 on at another rate: the old step 12 makes way, and the new one is what a later run finds."""
    run(workspace, tmp_path)
    old = (tmp_path / "checkpoint-12" / "adapter_model.safetensors").read_bytes()
    run(workspace, tmp_path, resume_from_checkpoint=tmp_path / "checkpoint-9", allow_change="learning_rate", learning_rate=0.002)
    assert (tmp_path / "set-aside-checkpoint-12" / "adapter_model.safetensors").read_bytes() == old
    new = (tmp_path / "checkpoint-12" / "adapter_model.safetensors").read_bytes()
    assert new != old
    assert (tmp_path / "adapter_model.safetensors").read_bytes() == new
    rates = {entry["step"]: entry["learning_rate"] for entry in history(tmp_path)}
    assert rates[8] > 0.002 > rates[10]


@pytest.mark.effect("early_stopping_threshold")
def test_the_evaluation_before_the_first_step_may_be_the_best(workspace: Workspace, tmp_path: Path) -> None:
    """No later one gains 50 nats: patience ends the run, which then finishes with the weights of step 0."""
    run(workspace, tmp_path, eval_on_start=True, eval_strategy="steps", eval_steps=2, val_size=4, load_best_model_at_end=True,
        early_stopping_patience=2, early_stopping_threshold=50)
    assert json.loads((tmp_path / "trainer_state.json").read_text())["best_global_step"] == 0
    start, final = (tmp_path / folder / "adapter_model.safetensors" for folder in ("checkpoint-0", "."))
    assert start.read_bytes() == final.read_bytes()


@pytest.mark.effect("do_train")
def test_without_training_nothing_is_begun_or_moved(workspace: Workspace, tmp_path: Path) -> None:
    """do_train=false evaluates what the configuration names, not what another run left in output_dir, and leaves that alone."""
    run(workspace, tmp_path, val_size=4)
    before = results(tmp_path)
    metrics = run(workspace, tmp_path, val_size=4, do_train=False, do_eval=True, overwrite_output_dir=True)
    untrained = run(workspace, tmp_path / "other", val_size=4, eval_on_start=True, max_steps=1)
    assert untrained and metrics["eval_loss"] == pytest.approx(history(tmp_path / "other")[0]["eval_loss"], rel=1e-6)
    assert results(tmp_path) == before and not list(tmp_path.glob("previous-*"))


@pytest.mark.effect("neat_packing")
def test_plain_packing_lets_rows_see_each_other_whatever_the_layout(workspace: Workspace, tmp_path: Path) -> None:
    """neat_packing=false with padding_free is plain packing still; with neat_packing the loss is another."""
    losses = {}
    for name, changes in {"plain": {"neat_packing": False}, "both": {"neat_packing": False, "padding_free": True}, "neat": {}}.items():
        run(workspace, tmp_path / name, packing=True, cutoff_len=64, max_steps=1, logging_steps=1, **changes)
        losses[name] = history(tmp_path / name)[0]["loss"]
    assert losses["plain"] == losses["both"] != losses["neat"]

"""Whole runs of stage rm on a tiny model: what they learn, keep and leave behind; evaluation, prediction and export of the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tunewright.commands.train import train
from tunewright.dialects.read import read_config
from tunewright.engine.hub import MODEL_FILES, files_of
from tunewright.selftest.killing import Case, Server
from tunewright.selftest.pairs import write_pairs
from tunewright.selftest.settling import copied, go_on
from tunewright.selftest.tiny import write_model
from tunewright.selftest.workspace import Workspace, results

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    path = tmp_path_factory.mktemp("rewards")
    write_model(path / "model")
    write_pairs(path / "rows.jsonl", 22)
    write_pairs(path / "many.jsonl", 200)
    write_pairs(path / "held_out.jsonl", 40, seed=1)
    return Workspace(path)


def run(workspace: Workspace, output_dir: Path, **changes: Any) -> dict[str, float]:
    settings = workspace.settings(output_dir, **{"stage": "rm", **changes})
    reading = read_config([f"{name}={value}" for name, value in settings.items()], purpose="train").resolve()
    return train(reading.config)


def history(output_dir: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((output_dir / "trainer_state.json").read_text())["log_history"]
    return found


@pytest.mark.parametrize("kind", ["lora", "full", "freeze"])
def test_held_out_pairs_are_told_apart(workspace: Workspace, tmp_path: Path, kind: str) -> None:
    """Which of two answers has more words of one half of a list is learnt from 200 pairs: from chance to nearly all of 40 others."""
    run(workspace, tmp_path, finetuning_type=kind, dataset=workspace.path / "many.jsonl", eval_dataset=workspace.path / "held_out.jsonl",
        num_train_epochs=4, learning_rate=0.005, eval_strategy="epoch", eval_on_start=True, save_strategy="no")
    found = [entry["eval_rewards/accuracies"] for entry in history(tmp_path) if "eval_rewards/accuracies" in entry]
    assert found[0] < 0.75 and found[-1] > 0.9, found
    last = [entry for entry in history(tmp_path) if "eval_loss" in entry][-1]
    assert last["eval_rewards/margins"] == pytest.approx(last["eval_rewards/chosen"] - last["eval_rewards/rejected"], rel=1e-6)


def command(verb: str, *words: object, **settings: object) -> None:
    """The verb as a user starts it, in this process."""
    from tunewright.cli import main

    assert main([verb, *map(str, words), *(f"{name}={value}" for name, value in settings.items())]) == 0


def plain_rewards(model: torch.nn.Module, head: dict[str, torch.Tensor], directory: Path, file: Path) -> list[tuple[float, float]]:
    """By transformers alone: each row of ids in ChatML, the last hidden state of its last token, the product with the head."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    found = []
    for line in file.read_text().splitlines():
        row = json.loads(line)
        pair = []
        for answer in (row["chosen"], row["rejected"]):
            text = f"<|im_start|>user\n{row['instruction']}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>"
            ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
            with torch.no_grad():
                state = model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, -1]
            pair.append(float(state @ head["v_head.summary.weight"][0] + head["v_head.summary.bias"][0]))
        found.append((pair[0], pair[1]))
    return found


def written(output_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output_dir / "generated_predictions.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(workspace: Workspace) -> Path:
    """A LoRA reward model."""
    with torch.random.fork_rng():
        run(workspace, workspace.path / "trained", num_train_epochs=3)
    return workspace.path / "trained"


def test_a_reward_model_opens_with_plain_peft(workspace: Workspace, trained: Path, tmp_path: Path) -> None:
    """Scores of `predict` are those of peft's model and the file's two tensors; `eval` and `predict` count what these scores say."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    assert {path.name for path in trained.iterdir()} >= {"adapter_model.safetensors", "value_head.safetensors"}
    assert "value_head.safetensors" in files_of(trained, MODEL_FILES)  # it goes to the hub, too
    head = load_file(trained / "value_head.safetensors")
    assert head["v_head.summary.bias"].tolist() == [0.0]  # no difference of two rewards depends on it
    assert not any("v_head" in name for name in load_file(trained / "adapter_model.safetensors"))
    held_out = workspace.path / "held_out.jsonl"
    for verb in ("predict", "eval"):
        command(verb, trained, stage="rm", eval_dataset=held_out, output_dir=tmp_path / verb, data_cache_dir="none")
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(workspace.path / "model"), trained).eval()
    expected = plain_rewards(plain, head, trained, held_out)
    found = written(tmp_path / "predict")
    assert [set(row) for row in found] == [{"chosen", "rejected"}] * 40
    assert [(row["chosen"], row["rejected"]) for row in found] == [pytest.approx(pair, abs=1e-4) for pair in expected]
    won = sum(chosen > rejected for chosen, rejected in expected) / len(expected)
    loss = sum(float(torch.nn.functional.softplus(torch.tensor(rejected - chosen))) for chosen, rejected in expected) / len(expected)
    predicted = json.loads((tmp_path / "predict" / "predict_results.json").read_text())
    evaluated = json.loads((tmp_path / "eval" / "eval_results.json").read_text())
    assert predicted["predict_accuracy"] == evaluated["eval_rewards/accuracies"] == won
    assert predicted["predict_loss"] == pytest.approx(loss, rel=1e-4) and evaluated["eval_loss"] == pytest.approx(loss, rel=1e-4)
    assert predicted["predict_rewards/margins"] == pytest.approx(evaluated["eval_rewards/margins"], rel=1e-4)


def test_single_answers_get_a_score_each(workspace: Workspace, trained: Path, tmp_path: Path) -> None:
    """The chosen answers of the pairs as conversations: the same scores as in their pairs."""
    rows = [json.loads(line) for line in (workspace.path / "held_out.jsonl").read_text().splitlines()]
    single = tmp_path / "single.jsonl"
    single.write_text("".join(json.dumps({"instruction": row["instruction"], "output": row["chosen"]}) + "\n" for row in rows))
    for name, file in {"pairs": workspace.path / "held_out.jsonl", "single": single}.items():
        command("predict", trained, stage="rm", eval_dataset=file, output_dir=tmp_path / name, data_cache_dir="none")
    found = written(tmp_path / "single")
    assert [row["score"] for row in found] == [pytest.approx(row["chosen"], abs=1e-4) for row in written(tmp_path / "pairs")]
    mean = sum(row["score"] for row in found) / len(found)
    assert json.loads((tmp_path / "single" / "predict_results.json").read_text())["predict_reward"] == pytest.approx(mean, rel=1e-9)


def test_an_exported_reward_model_keeps_its_head(workspace: Workspace, trained: Path, tmp_path: Path) -> None:
    """The merged model scores as the adapter does; its weights hold no head, and the head's file is the very same."""
    held_out = workspace.path / "held_out.jsonl"
    command("export", trained, export_dir=tmp_path / "merged")
    assert (tmp_path / "merged" / "value_head.safetensors").read_bytes() == (trained / "value_head.safetensors").read_bytes()
    assert not any("v_head" in name for name in load_file(tmp_path / "merged" / "model.safetensors"))
    for name, directory in {"merged": tmp_path / "merged", "adapter": trained}.items():
        command("predict", directory, stage="rm", eval_dataset=held_out, output_dir=tmp_path / name / "scores", data_cache_dir="none")
    one, other = (written(tmp_path / name / "scores") for name in ("merged", "adapter"))
    assert [row["chosen"] for row in one] == [pytest.approx(row["chosen"], abs=1e-4) for row in other]


def test_two_ranks_train_what_one_trains(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    """Whole runs with a model whose output projection is no embedding: it takes no part, and no rank waits for its gradient."""
    write_untied(workspace.path / "untied")
    changes = {"stage": "rm", "finetuning_type": "full", "model_name_or_path": workspace.path / "untied", "num_train_epochs": 1,
               "learning_rate": 0.001, "eval_dataset": workspace.path / "held_out.jsonl", "eval_strategy": "epoch"}
    one = workspace.settings(tmp_path / "one", per_device_train_batch_size=4, **changes)
    two = workspace.settings(tmp_path / "two", per_device_train_batch_size=2, **changes)
    for scenario, settings in (("train", one), ("train_on_two_ranks", two)):
        outcome = kill_server.run(Case(scenario, {"settings": settings}, settings["output_dir"]))
        assert outcome.code == 0, outcome.output
    for name in ("value_head.safetensors", "model.safetensors"):
        found, expected = (load_file(tmp_path / folder / name) for folder in ("two", "one"))
        assert all(torch.allclose(found[key], expected[key], atol=2e-4) for key in expected)
    start = load_file(workspace.path / "untied" / "model.safetensors")
    trained = load_file(tmp_path / "one" / "model.safetensors")
    assert [key for key in start if torch.equal(start[key], trained[key])] == ["lm_head.weight"]
    told = [next(entry for entry in history(tmp_path / folder) if "eval_loss" in entry) for folder in ("two", "one")]
    for name in ("eval_loss", "eval_rewards/accuracies", "eval_rewards/margins"):
        assert told[0][name] == pytest.approx(told[1][name], abs=1e-3)


def write_untied(directory: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    write_model(directory)
    config = AutoConfig.from_pretrained(directory)
    config.tie_word_embeddings = False
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)


def test_rewards_are_predicted_after_training(workspace: Workspace, tmp_path: Path) -> None:
    """do_eval and do_predict in one run: a row for each held-out pair, and the accuracy of both is the same."""
    metrics = run(workspace, tmp_path, val_size=6, do_eval=True, do_predict=True, num_train_epochs=1, save_strategy="no")
    rows = written(tmp_path)
    assert len(rows) == 6
    assert metrics["predict_accuracy"] == metrics["eval_rewards/accuracies"] == sum(row["chosen"] > row["rejected"] for row in rows) / 6


def test_training_goes_on_from_a_reward_model(workspace: Workspace, trained: Path, tmp_path: Path) -> None:
    """With a rate of next to nothing the head is that of the adapter; another output directory and no checkpoint of this run."""
    run(workspace, tmp_path, adapter_name_or_path=trained, learning_rate=1e-12, num_train_epochs=1)
    found, given = (load_file(path / "value_head.safetensors") for path in (tmp_path, trained))
    assert all(torch.allclose(found[name], given[name], atol=1e-9) for name in given)


def test_a_model_without_a_head_cannot_be_evaluated_as_one(workspace: Workspace, capfd: pytest.CaptureFixture[str]) -> None:
    from tunewright.cli import main

    model, rows = workspace.path / "model", workspace.path / "held_out.jsonl"
    assert main(["eval", str(model), "stage=rm", f"eval_dataset={rows}", "data_cache_dir=none"]) == 2
    assert f"{model} has no value_head.safetensors: it is not a reward model" in capfd.readouterr().err


@pytest.mark.parametrize(("kind", "scenario", "rows"), [
    ("full", "train", 4), ("lora", "train_on_two_ranks", 2)])
def test_a_killed_run_ends_as_if_it_had_not_been(
    kill_server: Server, workspace: Workspace, tmp_path: Path, kind: str, scenario: str, rows: int
) -> None:
    """Inside the fifth step, after the checkpoint of the third; weights, head, optimizer and log are those of the straight run, and the
    best weights of both are read back at the end, the head's among them."""
    changes = {"stage": "rm", "finetuning_type": kind, "eval_dataset": workspace.path / "held_out.jsonl", "eval_strategy": "steps",
               "eval_steps": 2, "load_best_model_at_end": True, "metric_for_best_model": "rewards/accuracies",
               "per_device_train_batch_size": rows}
    settings = workspace.settings(tmp_path / "run", **changes)
    copied(kill_server, scenario, settings, tmp_path / "copies", 0, (4,))
    expected = results(tmp_path / "run")
    assert go_on(kill_server, scenario, settings, tmp_path / "copies" / "step-4") == expected
    assert "value_head.safetensors" in expected["final"]

"""Result files, curves and the model card. Oracle: whole files and values worked by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml

from tunewright.config.data import DataConfig
from tunewright.config.model import ModelConfig
from tunewright.config.run import RunConfig
from tunewright.config.run_control import RunControl
from tunewright.config.tuning import TuningConfig
from tunewright.engine.cards import card_facts, license_of, public_name, render_card, write_card
from tunewright.engine.plots import plot_curves, smoothed
from tunewright.engine.results import TrainFigures, peak_memory_gb, write_json, write_results, write_trainer_state
from tunewright.errors import StorageError


def test_result_files_and_their_sum(tmp_path: Path) -> None:
    write_results(tmp_path, "train", {"train_loss": 1.5, "epoch": 3.0})
    write_results(tmp_path, "eval", {"eval_loss": math.nan, "epoch": 3.0})
    assert json.loads((tmp_path / "train_results.json").read_text()) == {"train_loss": 1.5, "epoch": 3.0}
    assert json.loads((tmp_path / "eval_results.json").read_text()) == {"eval_loss": None, "epoch": 3.0}
    assert json.loads((tmp_path / "all_results.json").read_text()) == {"train_loss": 1.5, "eval_loss": None, "epoch": 3.0}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all_results.json", "eval_results.json", "train_results.json"]


def test_trainer_state_merges(tmp_path: Path) -> None:
    write_trainer_state(tmp_path, {"global_step": 1, "max_steps": 5})
    write_trainer_state(tmp_path, {"global_step": 2, "log_history": [{"step": 1, "loss": math.inf}]})
    assert json.loads((tmp_path / "trainer_state.json").read_text()) == {
        "global_step": 2, "max_steps": 5, "log_history": [{"step": 1, "loss": None}]}


def test_a_failed_write_keeps_the_old_file_and_says_where(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    with pytest.raises(StorageError, match=r"cannot write \(File exists\)"):
        write_json(blocked / "x.json", {"a": 1})
    assert blocked.read_text() == "not a directory"
    (tmp_path / "all_results.json").write_text("{torn")
    with pytest.raises(StorageError, match=r"all_results\.json: is not JSON"):
        write_results(tmp_path, "train", {"epoch": 1})


def test_train_figures() -> None:
    """100 samples, 20 steps, 5,000 tokens in 4 s."""
    metrics = TrainFigures(loss=1.25, runtime_s=4.0, samples=100, steps=20, tokens=5000, epoch=2.0).metrics()
    memory = metrics.pop("peak_memory_gb")
    assert metrics == {
        "epoch": 2.0, "train_loss": 1.25, "train_runtime": 4.0, "train_samples_per_second": 25.0, "train_steps_per_second": 5.0,
        "train_tokens_per_second": 1250.0, "total_tokens": 5000}
    assert 0.01 < memory <= peak_memory_gb() < 1000


def test_peak_memory_counts_bytes() -> None:
    """Touching 300 MB more raises the peak by about that much, if it was not higher before."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    high_water = int(status["VmHWM"].split()[0]) * 1024 / 1e9
    assert peak_memory_gb() == pytest.approx(high_water, rel=0.05)


def test_smoothing() -> None:
    """Three points: weight 1.8 (1 / (1 + e^-0.15) - 0.5) = 0.067372..; each point moves the average by the rest."""
    weight = 1.8 * (1 / (1 + math.exp(-0.15)) - 0.5)
    second = weight * 4.0 + (1 - weight) * 2.0
    assert smoothed([4.0, 2.0, 1.0]) == pytest.approx([4.0, second, weight * second + (1 - weight) * 1.0])
    assert smoothed([]) == []


def test_curves_are_drawn_for_what_the_log_has(tmp_path: Path) -> None:
    history = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "eval_loss": 2.5}, {"step": 4, "eval_loss": 2.0},
               {"step": 4, "loss": None}, {"step": 4, "eval_accuracy": 0.5}]
    written = plot_curves(history, tmp_path)
    assert [path.name for path in written] == ["training_loss.png", "training_eval_loss.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    assert plot_curves([{"step": 1, "loss": 3.0}], tmp_path / "none") == []


def a_run(model: str, **data: object) -> RunConfig:
    return RunConfig(model=ModelConfig(model_name_or_path=model), run=RunControl(output_dir="/home/someone/out"),
                     data=DataConfig(dataset=("/home/someone/secret/rows.jsonl", "alpaca_en", {"file_name": "x/inline.json"}), **data))  # type: ignore[arg-type]


def test_card(tmp_path: Path) -> None:
    model = tmp_path / "SmolLM2"
    model.mkdir()
    (model / "README.md").write_text("---\nlicense: apache-2.0\ntags: [x]\n---\n# body\nlicense: other\n")
    facts = card_facts(a_run(str(model)), {"train_loss": 1.23456789, "eval_loss": 2.0, "hostname": 3.0})
    text = write_card(tmp_path, facts).read_text()
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "peft", "base_model": "SmolLM2", "tags": ["tunewright", "sft", "lora", "generated_from_trainer"],
        "license": "apache-2.0", "datasets": ["rows", "alpaca_en", "inline"]}
    assert "| learning_rate | 0.0001 |" in body and "| lora_alpha | 16 |" in body and "| train_loss | 1.23457 |" in body
    assert "| torch | " in body
    for private in ("someone", "/home", str(tmp_path), "hostname"):
        assert private not in text


def test_card_of_a_full_run_has_no_lora_lines() -> None:
    run = RunConfig(model=ModelConfig(model_name_or_path="org/model"), tuning=TuningConfig(finetuning_type="full"))
    text = render_card(card_facts(run, {}))
    assert "library_name: transformers" in text and "base_model: org/model" in text and "lora_rank" not in text
    assert "None were measured." in text and "license" not in text


def test_card_cells_cannot_break_out() -> None:
    facts = card_facts(a_run("m|od[e](l)<b>`x`"), {})
    assert all(line.count("|") == 3 for line in render_card(facts).splitlines() if line.startswith("|"))
    assert "<b>" not in render_card(facts).split("---\n", 2)[2]


@pytest.mark.parametrize(("given", "name"), [
    ("org/model", "org/model"), ("/data/me/model", "model"), ("./out/model/", "model"), ("../model", "model"), ("demo", "demo")])
def test_public_name(given: str, name: str) -> None:
    assert public_name(given) == name


def test_a_directory_that_looks_like_a_hub_id_is_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "me" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert public_name("me/model") == "model"


@pytest.mark.parametrize("card", ["# no front matter\nlicense: mit\n", "---\ntags: []\n---\nlicense: mit\n", "---\nlicense: [a, b]\n---\n"])
def test_a_licence_is_taken_from_the_front_matter_only(tmp_path: Path, card: str) -> None:
    (tmp_path / "README.md").write_text(card)
    assert license_of(tmp_path) is None

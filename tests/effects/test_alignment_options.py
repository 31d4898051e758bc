"""The parameters of dpo and kto through whole runs. Oracles: relations between logged numbers that follow from the papers' formulas."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from tests.effects.engine_runs import config, history, losses, run, weights
from tunewright.errors import InputError
from tunewright.selftest.pairs import write_pairs
from tunewright.selftest.rows import write_feedback
from tunewright.selftest.tiny import write_model
from tunewright.selftest.workspace import Workspace

pytestmark = pytest.mark.slow
ONE_STEP = {"max_steps": 1, "logging_steps": 1, "save_strategy": "no", "per_device_train_batch_size": 1, "warmup_ratio": 0}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A model, another one of the same shape as reference, an adapter of the first, and preferences of both kinds."""
    path = tmp_path_factory.mktemp("alignment")
    write_model(path / "model")
    write_model(path / "other", seed=7)
    write_pairs(path / "rows.jsonl", 12)
    write_feedback(path / "rows.jsonl", path / "marked.jsonl")
    found = Workspace(path)
    run(found, path / "sft", stage="sft", dataset=path / "chosen.jsonl" if _as_answers(path) else None, num_train_epochs=1)
    return found


def _as_answers(path: Path) -> bool:
    lines = path.joinpath("marked.jsonl").read_text().replace(', "kto_tag": true', "").replace(', "kto_tag": false', "")
    return bool(path.joinpath("chosen.jsonl").write_text(lines))


def first(workspace: Workspace, output_dir: Path, **changes: Any) -> dict[str, Any]:
    """What one step of dpo logs of its one pair, against another model as reference."""
    run(workspace, output_dir, **{"stage": "dpo", "ref_model": workspace.path / "other", **ONE_STEP, **changes})
    return history(output_dir)[0]


def log_sigmoid(value: float) -> float:
    return -math.log1p(math.exp(-value))


@pytest.mark.effect("pref_beta", "pref_loss", "simpo_gamma", "dpo_label_smoothing", "pref_ftx")
def test_the_formula_and_its_numbers(workspace: Workspace, tmp_path: Path) -> None:
    """One pair: the logged margin m, beta times the difference of log-ratios, gives the loss of each formula; smoothing adds e m; pref_ftx
    adds its share of the mean cross-entropy, which orpo logs as sft_loss."""
    plain = first(workspace, tmp_path / "plain")
    margin = plain["rewards/margins"]
    assert abs(margin) > 1e-3 and plain["loss"] == pytest.approx(-log_sigmoid(margin), rel=1e-5)
    doubled = first(workspace, tmp_path / "beta", pref_beta=0.2)
    assert doubled["rewards/margins"] == pytest.approx(2 * margin, rel=1e-4)
    assert doubled["loss"] == pytest.approx(-log_sigmoid(2 * margin), rel=1e-5)
    assert first(workspace, tmp_path / "hinge", pref_loss="hinge")["loss"] == pytest.approx(max(0, 1 - margin), rel=1e-5)
    smooth = first(workspace, tmp_path / "smooth", dpo_label_smoothing=0.2)
    assert smooth["loss"] == pytest.approx(-log_sigmoid(margin) + 0.2 * margin, rel=1e-5)
    robust = first(workspace, tmp_path / "robust", dpo_label_smoothing=0.2, pref_loss="robust")
    assert robust["loss"] == pytest.approx((-0.8 * log_sigmoid(margin) + 0.2 * log_sigmoid(-margin)) / 0.6, rel=1e-5)
    run(workspace, tmp_path / "orpo", stage="dpo", pref_loss="orpo", **ONE_STEP)
    orpo = history(tmp_path / "orpo")[0]
    assert orpo["loss"] == pytest.approx(orpo["sft_loss"] + 0.1 * orpo["odds_ratio_loss"], rel=1e-5)
    supervised = first(workspace, tmp_path / "ftx", pref_ftx=0.5)
    assert supervised["loss"] == pytest.approx(plain["loss"] + 0.5 * orpo["sft_loss"], rel=1e-5)
    for gamma in (0.5, 1.5):
        run(workspace, tmp_path / f"simpo{gamma}", stage="dpo", pref_loss="simpo", pref_beta=2.0, simpo_gamma=gamma, **ONE_STEP)
        simpo = history(tmp_path / f"simpo{gamma}")[0]
        assert simpo["loss"] == pytest.approx(-log_sigmoid(simpo["rewards/margins"] - gamma), rel=1e-5)


@pytest.mark.effect("kto_chosen_weight", "kto_rejected_weight")
def test_weights_of_feedback(workspace: Workspace, tmp_path: Path) -> None:
    """At the start every row costs its weight times 1 - sigmoid(0); twelve rows, half of them good."""
    common = {"stage": "kto", "dataset": workspace.path / "marked.jsonl", **ONE_STEP, "per_device_train_batch_size": 12}
    for name, (good, bad) in {"both": (1.0, 1.0), "good": (1.8, 1.0), "bad": (1.0, 0.4)}.items():
        run(workspace, tmp_path / name, kto_chosen_weight=good, kto_rejected_weight=bad, **common)
        assert losses(tmp_path / name) == [pytest.approx(0.5 * (good + bad) / 2, rel=1e-5)]
        assert history(tmp_path / name)[0]["kl"] == pytest.approx(0, abs=1e-5)


@pytest.mark.effect("ref_model", "ref_model_adapters", "ref_model_quantization_bit")
def test_reference_models(workspace: Workspace, tmp_path: Path) -> None:
    """The policy without its adapter, and the same model named, are the start: ln 2. A policy that goes on from an adapter is compared
    with the model without it, unless that adapter is the reference's too. Four bits are near the start, but not at it."""
    base, adapter = workspace.path / "model", workspace.path / "sft"
    start = math.log(2)
    common = {"per_device_train_batch_size": 6, "learning_rate": 1e-3}
    run(workspace, tmp_path / "off", stage="dpo", **{**ONE_STEP, **common})
    assert losses(tmp_path / "off") == [pytest.approx(start, abs=1e-6)]
    assert first(workspace, tmp_path / "same", ref_model=base, **common)["loss"] == pytest.approx(start, abs=1e-6)
    assert abs(first(workspace, tmp_path / "other", **common)["loss"] - start) > 1e-3
    run(workspace, tmp_path / "on", stage="dpo", adapter_name_or_path=adapter, **{**ONE_STEP, **common})
    assert abs(losses(tmp_path / "on")[0] - start) > 1e-4
    both = first(workspace, tmp_path / "both", ref_model=base, ref_model_adapters=adapter, adapter_name_or_path=adapter, **common)
    assert both["loss"] == pytest.approx(start, abs=1e-6)
    coarse = first(workspace, tmp_path / "coarse", ref_model=base, ref_model_quantization_bit=4, **common)
    assert 1e-6 < abs(coarse["loss"] - start) < 0.1


@pytest.mark.effect("precompute_ref_log_probs")
@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_remembered_and_live_references_agree(workspace: Workspace, tmp_path: Path, stage: str, kind: str) -> None:
    """Adapter off, or a frozen copy of the start: the same losses to the rounding of float32, and a file only where it is remembered."""
    data = workspace.path / ("rows.jsonl" if stage == "dpo" else "marked.jsonl")
    common = {"stage": stage, "dataset": data, "eval_dataset": data, "eval_strategy": "epoch", "finetuning_type": kind, "logging_steps": 1,
              "save_strategy": "no"}
    for name, asked in (("kept", {}), ("live", {"precompute_ref_log_probs": False})):
        run(workspace, tmp_path / name, **common, **asked)
        assert (tmp_path / name / "reference_logps.safetensors").exists() == (name == "kept")
    assert losses(tmp_path / "kept") == pytest.approx(losses(tmp_path / "live"), rel=2e-5)
    assert losses(tmp_path / "kept")[-1] != losses(tmp_path / "kept")[0]
    evaluated = [[entry["eval_loss"] for entry in history(tmp_path / name) if "eval_loss" in entry] for name in ("kept", "live")]
    assert len(evaluated[0]) == 2 and evaluated[0] == pytest.approx(evaluated[1], rel=2e-5)


def test_what_is_remembered_does_not_depend_on_how_the_step_is_split(workspace: Workspace, tmp_path: Path) -> None:
    """Bit for bit, and read again from the data cache by another run."""
    for name, changes in {"4": {}, "2x2": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}}.items():
        run(workspace, tmp_path / name, stage="kto", dataset=workspace.path / "marked.jsonl", data_cache_dir=tmp_path / f"cache{name}",
            save_strategy="no", **changes)
    assert (tmp_path / "4" / "reference_logps.safetensors").read_bytes() == (tmp_path / "2x2" / "reference_logps.safetensors").read_bytes()
    (cached,) = (tmp_path / "cache4").glob("reference-*.safetensors")
    with safe_open(cached, "np") as file:
        assert 12 + 12 < file.get_slice("logps").get_shape()[0] <= 12 + 2 * 12  # rows, and their mismatched ones in each of two epochs
    run(workspace, tmp_path / "again", stage="kto", dataset=workspace.path / "marked.jsonl", data_cache_dir=tmp_path / "cache4",
        save_strategy="no")
    first_run, again = weights(tmp_path / "4"), weights(tmp_path / "again")
    assert all((first_run[name] == again[name]).all() for name in first_run)


def test_the_reference_is_not_opened_again(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run reads its numbers from the output directory: a reference that cannot be opened any more does not stop it."""
    import shutil

    from tunewright.engine import roles

    settings = {"stage": "dpo", "ref_model": workspace.path / "other", "save_steps": 2, "logging_steps": 1, "num_train_epochs": 2}
    run(workspace, tmp_path, **settings)
    whole = weights(tmp_path)
    shutil.rmtree(tmp_path / "checkpoint-6")
    (tmp_path / "adapter_model.safetensors").unlink()

    def gone(*_: Any) -> Any:
        raise InputError("the reference is gone")

    monkeypatch.setattr(roles, "open_reference", gone)
    run(workspace, tmp_path, **settings)
    assert all((whole[name] == again).all() for name, again in weights(tmp_path).items())


def test_the_reference_leaves_memory_before_training(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once its numbers are known nothing holds the model any more."""
    import weakref

    from tunewright.engine import roles, training

    opened, prepared = [], []
    own_open, own_prepare = roles.open_reference, training.prepare

    def watched(*arguments: Any) -> Any:
        found = own_open(*arguments)
        opened.append(weakref.ref(found[0]))
        return found

    def looked(*arguments: Any) -> Any:
        prepared.extend(one() for one in opened)
        return own_prepare(*arguments)

    monkeypatch.setattr(roles, "open_reference", watched)
    monkeypatch.setattr(training, "prepare", looked)
    first(workspace, tmp_path)
    assert prepared == [None]


@pytest.mark.effect("stage")
def test_the_stage_decides_what_rows_are(workspace: Workspace, tmp_path: Path) -> None:
    """Pairs are no feedback."""
    with pytest.raises(InputError, match="kto"):
        run(workspace, tmp_path, stage="kto", **ONE_STEP)
    assert config(workspace, tmp_path, stage="dpo").run.stage == "dpo"

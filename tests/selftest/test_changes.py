"""What is told of a run that is to go on otherwise. Oracle: the one change that was made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.store.running import copy
from tunewright.config.alignment import AlignmentConfig
from tunewright.config.model import ModelConfig
from tunewright.config.run import RunConfig
from tunewright.config.run_control import RunControl
from tunewright.config.table import table
from tunewright.engine.resume import demand_same_settings
from tunewright.engine.run_settings import FUNCTIONS, REFERENCE, REWARD, source_digests
from tunewright.errors import InputError
from tunewright.selftest import changes
from tunewright.selftest.tiny import write_model


def test_every_parameter_is_a_case() -> None:
    """All but the two that have one value, what is compared besides parameters, and whole runs."""
    assert changes.CHECK.wanted == len(table()) - 2 + len(changes.FACTS) + len(changes.CHANGED)


def test_the_table(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Beside the error, which is one line."""
    from tunewright.engine.checkpoint import Checkpoint

    checkpoint = Checkpoint(tmp_path, 3, {"settings": {"learning_rate": 0.01, "optim": "sgd"}})
    with caplog.at_level("INFO", "tunewright"), pytest.raises(InputError, match=r"^[^\n]*$"):
        demand_same_settings(checkpoint, {"learning_rate": 0.001, "optim": "lamb"}, ())
    assert [record.message for record in caplog.records] == [
        "setting        was    is", "learning_rate  0.01   0.001", 'optim          "sgd"  "lamb"']


def test_a_checkpoint_without_digests_goes_on(tmp_path: Path) -> None:
    """One that was made before they were taken says nothing of them."""
    from tunewright.engine.checkpoint import Checkpoint

    demand_same_settings(Checkpoint(tmp_path, 3, {"settings": {}}), {REFERENCE: "0123", FUNCTIONS: "4567"}, ())
    with pytest.raises(InputError, match=r"weights of ref_model: \"89ab\" -> \"0123\"\)"):
        demand_same_settings(Checkpoint(tmp_path, 3, {"settings": {REFERENCE: "89ab"}}), {REFERENCE: "0123"}, ())


def run_of(tmp_path: Path, stage: str, **alignment: object) -> RunConfig:
    return RunConfig(run=RunControl(stage=stage), model=ModelConfig(model_name_or_path=str(tmp_path / "model")),
                     alignment=AlignmentConfig(**alignment))  # type: ignore[arg-type]


def test_what_is_looked_at(tmp_path: Path) -> None:
    """Only what the stage uses; the same content at another path is the same."""
    write_model(tmp_path / "model")
    copy(tmp_path / "model", tmp_path / "again")
    (tmp_path / "rewards.py").write_text("def one(completions): ...\n")
    reference = run_of(tmp_path, "dpo", ref_model=str(tmp_path / "model"))
    assert source_digests(reference) == source_digests(run_of(tmp_path, "dpo", ref_model=str(tmp_path / "again")))
    assert list(source_digests(reference)) == [REFERENCE]
    assert source_digests(run_of(tmp_path, "dpo")) == source_digests(run_of(tmp_path, "sft", ref_model=str(tmp_path / "model"))) == {}
    assert source_digests(run_of(tmp_path, "dpo", ref_model="model", pref_loss="orpo")) == {}
    service = run_of(tmp_path, "ppo", reward_model="http://localhost:1", reward_model_type="api")
    assert source_digests(service) == {}
    full = replace(service, alignment=replace(service.alignment, reward_model=str(tmp_path / "again"), reward_model_type="full"))
    assert source_digests(full) == {REWARD: source_digests(reference)[REFERENCE]}
    functions = run_of(tmp_path, "grpo", reward_funcs=(f"{tmp_path}/rewards.py:one", "json:dumps"))
    found = source_digests(functions)
    assert list(found) == [FUNCTIONS]
    (tmp_path / "rewards.py").write_text("def one(completions): ... \n")
    assert source_digests(functions)[FUNCTIONS] != found[FUNCTIONS]

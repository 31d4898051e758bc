"""Runs whose micro-batches a budget of tokens divides train what those of so many rows do. Oracles: the step of all rows at once, which
`tests/selftest/test_equivalence.py` holds against formulas; runs without a budget; the same run, never stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.effects.engine_runs import losses, run, weights
from tunewright.errors import OutOfMemoryError
from tunewright.selftest.equivalence import difference
from tunewright.selftest.equivalence_cases import TOLERANCE, settings, write_inputs
from tunewright.selftest.first_step import Step, first_step
from tunewright.selftest.killing import KILLED, Case, server
from tunewright.selftest.workspace import Workspace, results

pytestmark = pytest.mark.slow

BUDGET: dict[str, Any] = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "micro_batch_tokens": 40, "logging_steps": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Models and eight rows of each kind; verdicts on fast paths are kept there."""
    path = tmp_path_factory.mktemp("budget")
    write_inputs(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEWRIGHT_CACHE", str(path / "cache"))
        yield path


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.make(tmp_path_factory.mktemp("budgets"))


@pytest.fixture(autouse=True)
def quiet_random() -> Iterator[None]:
    """Runs seed the process's generators; other tests must not notice."""
    with torch.random.fork_rng():
        yield


def sizes(step: Step) -> list[int]:
    """Rows of the micro-batches."""
    return [len(batch.sample_ids) for batch in step.batches[0]]


@pytest.mark.parametrize("layout", [{}, {"padding_free": False}], ids=["flat", "padded"])
@pytest.mark.parametrize("name", ["pt", "sft", "sft of experts in balance", "rm", "dpo, sigmoid", "dpo, orpo", "kto"])
def test_a_step_is_the_one_of_all_rows_at_once(folder: Path, tmp_path: Path, name: str, layout: dict[str, Any]) -> None:
    """Loss, metrics and every gradient of eight rows in float64, to 1e-10; the micro-batches are not those of four rows."""
    base = {**settings(folder, name, "LoRA"), **layout}
    whole = first_step(base, tmp_path / "whole")
    tokens = sum(batch.num_tokens for batch in whole.batches[0]) // (4 if name == "kto" else 3)
    found = first_step({**base, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "micro_batch_tokens": tokens},
                       tmp_path / "divided")
    assert sizes(whole) == [8] and sum(sizes(found)) == 8 and len(found.batches[0]) > 1 and sizes(found) != [4, 4]
    assert difference(found, whole, TOLERANCE) == ""


def test_packed_sequences_are_rows(folder: Path, tmp_path: Path) -> None:
    """Sequences of up to 96 tokens, at most 200 together: the step of all of them, to 1e-10."""
    base = settings(folder, "sft", "LoRA") | {"packing": True, "cutoff_len": 96}
    whole = first_step(base, tmp_path / "whole")
    found = first_step(base | {"micro_batch_tokens": 200}, tmp_path / "divided")
    assert 1 < len(sizes(found)) < sum(sizes(found)) == sum(sizes(whole)) < 8
    assert difference(found, whole, TOLERANCE) == ""


def test_a_run_ends_with_the_weights_of_one_without(workspace: Workspace, tmp_path: Path) -> None:
    """Two epochs of six steps in float32: losses to 1e-5, weights to 1e-5 of the largest of each tensor. By SGD: the sign that Adam's first
    steps take of a gradient near zero is a matter of rounding, and differs between 4 x 1 and 1 x 4 rows as well."""
    descent = {"optim": "sgd", "learning_rate": 0.1, "lora_dropout": 0}
    run(workspace, tmp_path / "rows", **{**BUDGET, **descent, "micro_batch_tokens": "null"})
    run(workspace, tmp_path / "tokens", **BUDGET, **descent)
    assert len(losses(tmp_path / "tokens")) == 12
    assert losses(tmp_path / "tokens") == pytest.approx(losses(tmp_path / "rows"), rel=1e-5)
    ours, theirs = weights(tmp_path / "tokens"), weights(tmp_path / "rows")
    assert ours.keys() == theirs.keys()
    assert all(float((ours[name] - other).abs().max()) <= 1e-5 * float(other.abs().max()) for name, other in theirs.items())


@pytest.mark.parametrize("changes", [{}, {"group_by_length": True, "padding_free": False}], ids=["flat", "padded, by length"])
def test_two_ranks_train_what_one_does(workspace: Workspace, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Rows of 2 x 2 on one rank are rows of 1 x 2 on each of two, which run stand-ins: what is logged, to 1e-5."""
    one, two = tmp_path / "one", tmp_path / "two"
    straight("train", workspace, one, **BUDGET, **changes)
    straight("train_on_two_ranks", workspace, two, **{**BUDGET, "per_device_train_batch_size": 1}, **changes)
    ours, theirs = (results(path)["state"]["log_history"] for path in (one, two))
    assert len(ours) == 12
    for mine, other in zip(ours, theirs, strict=True):
        assert other == pytest.approx(mine, rel=1e-5)


@pytest.mark.parametrize(("scenario", "changes"), [
    ("train", {}), ("train", {"dataloader_num_workers": 2, "stage": "dpo"}),
    ("train", {"padding_free": False, "torch_compile_backend": "eager", "micro_batch_tokens": 64}),
    ("train_on_two_ranks", {"per_device_train_batch_size": 1, "ddp_timeout": 10})])
def test_a_run_that_is_killed_resumes_exactly(workspace: Workspace, tmp_path: Path, scenario: str, changes: dict[str, Any]) -> None:
    """Killed in the middle of the second epoch, with dropout, whose draws depend on the micro-batches: bit for bit the end of the run that
    was not."""
    chosen = {**BUDGET, "lora_dropout": 0.2, **changes}
    if chosen.get("stage") == "dpo":
        chosen["dataset"] = workspace.path / "pairs.jsonl"
    straight(scenario, workspace, tmp_path / "straight", **chosen)
    killed = workspace.settings(tmp_path / "killed", **chosen)
    ended = server().run(Case(scenario, {"settings": killed, "stop_after": 8}, killed["output_dir"]))
    assert ended.code == KILLED, ended.output
    straight(scenario, workspace, tmp_path / "killed", **chosen)
    assert results(tmp_path / "killed") == results(tmp_path / "straight")


def straight(scenario: str, workspace: Workspace, output_dir: Path, **changes: Any) -> None:
    """A run to its end."""
    ended = server().run(Case(scenario, {"settings": workspace.settings(output_dir, **changes)}, str(output_dir)))
    assert ended.code == 0, ended.output


def test_out_of_memory_says_which_budget_would_do(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the budget, or of the batch where that is less. That memory runs out is told by a stand-in at the process's border."""
    from tunewright.stages.sft import SupervisedFineTuning

    def loss(stage: Any, models: Any, batch: Any) -> Any:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(SupervisedFineTuning, "loss", loss)
    shorter = "use a smaller cutoff_len"
    for tokens, mend in ((10_000, rf"micro_batch_tokens: \d\d computes the same; or {shorter}"), (1, shorter)):
        with pytest.raises(OutOfMemoryError, match=rf"out of memory on a batch of \d rows \([^)]*\); {mend}"):
            run(workspace, tmp_path / str(tokens), **{**BUDGET, "micro_batch_tokens": tokens})

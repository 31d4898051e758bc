"""What may change between a run and its continuation, and where a run may begin.

Oracle: for changes, the settings written here; for a new learning rate, a run that had it and was given the same state; for the
rest, the files that were there before.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.store.running import copy, finished, run
from tunewright.config.model import ModelConfig
from tunewright.config.run import RunConfig
from tunewright.engine.resume import weights_digest
from tunewright.errors import InputError
from tunewright.selftest.killing import KILLED, Case, Server
from tunewright.selftest.tiny import write_model, write_rows
from tunewright.selftest.workspace import Workspace, results

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stopped(kill_server: Server, workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run killed in step 8: checkpoints 3 and 6."""
    output_dir = tmp_path_factory.mktemp("stopped") / "run"
    outcome = kill_server.run(Case("train", {"settings": workspace.settings(output_dir), "stop_after": 7}, str(output_dir)))
    assert outcome.code == KILLED and (output_dir / "checkpoint-6").is_dir(), outcome.output
    return output_dir


@pytest.fixture(scope="module")
def others(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model, half of the rows, an adapter's worth of other things to change to."""
    folder = tmp_path_factory.mktemp("others")
    write_model(folder / "model", seed=1)
    lines = (workspace.path / "rows.jsonl").read_text().splitlines()
    (folder / "half.jsonl").write_text("\n".join(lines[:11]) + "\n")
    return folder


def refusal(output: str) -> str:
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    return line


CHANGES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "rate": ({"learning_rate": 0.003}, {"learning_rate": "0.01 -> 0.003"}),
    "batch size": ({"per_device_train_batch_size": 2}, {"per_device_train_batch_size": "4 -> 2"}),
    "accumulation": ({"gradient_accumulation_steps": 3}, {"gradient_accumulation_steps": "1 -> 3"}),
    "seed": ({"seed": 7}, {"data_seed": "42 -> 7", "seed": "42 -> 7"}),
    "schedule": ({"lr_scheduler_type": "linear"}, {"lr_scheduler_type": '"cosine" -> "linear"'}),
    "epochs": ({"num_train_epochs": 3}, {"num_train_epochs": "2.0 -> 3.0"}),
    "optimizer": ({"optim": "adafactor"}, {"optim": '"adamw_torch_fused" -> "adafactor"'}),
    "two": ({"weight_decay": 0.1, "max_grad_norm": 0.5}, {"max_grad_norm": "1.0 -> 0.5", "weight_decay": "0.0 -> 0.1"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_setting_is_refused_with_old_and_new(
    kill_server: Server, workspace: Workspace, stopped: Path, tmp_path: Path, name: str
) -> None:
    """Exit 2; nothing on disk but the log of what was said changes, and the run can still go on as it was."""
    changes, expected = CHANGES[name]
    output_dir = copy(stopped, tmp_path / "run")
    outcome = run(kill_server, workspace, output_dir, "command_line", **changes)
    table = "; ".join(f"{key}: {what}" for key, what in expected.items())
    assert outcome.code == 2, outcome.output
    assert refusal(outcome.output) == (
        f"error: {output_dir / 'checkpoint-6'}: the run in this output_dir was made with other settings ({table}); put them back, "
        f"allow_change={','.join(expected)}, another output_dir, or overwrite_output_dir=true")
    assert sorted(path.name for path in output_dir.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-6"]


def test_other_data_another_model_another_tuning_and_more_ranks(
    kill_server: Server, workspace: Workspace, stopped: Path, others: Path, tmp_path: Path
) -> None:
    """Each is refused, and its name is in the table."""
    cases: list[tuple[str, dict[str, Any], str, tuple[str, ...]]] = [
        ("half", {"dataset": others / "half.jsonl"}, "train", ("dataset: ", "training data: \"22 examples, ", "-> \"11 examples, ")),
        ("model", {"model_name_or_path": others / "model"}, "train", ("model_name_or_path: ", "starting weights: ")),
        ("rank", {"lora_rank": 4}, "train", ("lora_rank: 8 -> 4",)),
        ("ranks", {"per_device_train_batch_size": 2}, "train_on_two_ranks", ("per_device_train_batch_size: 4 -> 2", "ranks: 1 -> 2")),
    ]
    for name, changes, scenario, parts in cases:
        output_dir = copy(stopped, tmp_path / name)
        outcome = run(kill_server, workspace, output_dir, scenario, **changes)
        assert outcome.code == 2, (name, outcome.output)
        assert all(part in outcome.output for part in parts), (name, outcome.output)


@pytest.mark.parametrize("kind", ["full", "freeze"])
def test_another_finetuning_type(kill_server: Server, workspace: Workspace, stopped: Path, tmp_path: Path, kind: str) -> None:
    """Refused, even when it is allowed by name: there are no such weights in the checkpoint."""
    output_dir = copy(stopped, tmp_path / "run")
    outcome = run(kill_server, workspace, output_dir, "command_line", finetuning_type=kind, allow_change="finetuning_type")
    assert outcome.code == 2 and len(refusal(outcome.output)) > 20, outcome.output


def test_the_same_rows_in_the_file_of_another_name_and_fewer_rows_in_the_same(
    kill_server: Server, workspace: Workspace, tmp_path: Path
) -> None:
    """The rows themselves are compared: halved under the same name they are noticed."""
    inner = Workspace(tmp_path)
    shutil.copytree(workspace.path / "model", tmp_path / "model")
    write_rows(tmp_path / "rows.jsonl", 22)
    settings = inner.settings(tmp_path / "run")
    assert kill_server.run(Case("train", {"settings": settings, "stop_after": 7}, settings["output_dir"])).code == KILLED
    write_rows(tmp_path / "rows.jsonl", 11)
    outcome = run(kill_server, inner, tmp_path / "run")
    assert outcome.code == 2 and "other settings (training data: \"22 examples, " in outcome.output, outcome.output


def test_other_weights_under_the_same_path(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    """A LoRA run resumed on a base of the same shape and name, but of other numbers; the same file with a new date is the same."""
    inner = Workspace(tmp_path)
    write_model(tmp_path / "model")
    write_rows(tmp_path / "rows.jsonl", 22)
    settings = inner.settings(tmp_path / "run")
    assert kill_server.run(Case("train", {"settings": settings, "stop_after": 7}, settings["output_dir"])).code == KILLED
    copy(tmp_path / "run", tmp_path / "again")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes())
    assert run(kill_server, inner, tmp_path / "again").code == 0
    write_model(tmp_path / "model", seed=1)
    outcome = run(kill_server, inner, tmp_path / "run")
    assert outcome.code == 2 and "other settings (starting weights: \"" in outcome.output, outcome.output


@pytest.mark.parametrize("where", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_digest_of_weights_sees_a_tensor_that_moved(tmp_path: Path, where: float) -> None:
    """One tensor in thirty of a file of 3 MB changed, wherever it stands; path and date do not matter."""
    import torch
    from safetensors.torch import save_file

    tensors = {f"layer.{number:02}": torch.randn(25_000, generator=torch.Generator().manual_seed(number)) for number in range(30)}
    (tmp_path / "one").mkdir(), (tmp_path / "two").mkdir()
    for folder in ("one", "two"):
        (tmp_path / folder / "config.json").write_text("{}")
        save_file(tensors, tmp_path / folder / "model.safetensors")
    before = weights_digest([tmp_path / "one"])
    assert before == weights_digest([tmp_path / "two"]) and len(before) == 16
    moved = f"layer.{round(where * 29):02}"
    save_file({**tensors, moved: tensors[moved] + 1e-3}, tmp_path / "two" / "model.safetensors")
    assert weights_digest([tmp_path / "two"]) != before
    (tmp_path / "one" / "config.json").write_text('{"rope_theta": 1}')
    assert weights_digest([tmp_path / "one"]) != before
    assert weights_digest([tmp_path / "one", tmp_path / "two"]) != weights_digest([tmp_path / "two", tmp_path / "one"])


@pytest.mark.effect("allow_change")
@pytest.mark.parametrize("name", ["rate", "batch size", "schedule", "epochs", "two"])
def test_allow_change_lets_exactly_those_pass(
    kill_server: Server, workspace: Workspace, stopped: Path, tmp_path: Path, name: str
) -> None:
    """With the right names the run goes on; with one besides changed, that one alone is in the table."""
    changes, expected = CHANGES[name]
    allowed = {**changes, "allow_change": ",".join(expected)}
    output_dir = copy(stopped, tmp_path / "more")
    outcome = run(kill_server, workspace, output_dir, **allowed, adam_beta2=0.9)
    assert outcome.code == 2 and "other settings (adam_beta2: 0.999 -> 0.9);" in outcome.output, outcome.output
    outcome = run(kill_server, workspace, copy(stopped, tmp_path / "run"), **allowed)
    assert outcome.code == 0 and "(step 6)" in outcome.output, outcome.output


def test_an_allowed_learning_rate_takes_effect(kill_server: Server, workspace: Workspace, stopped: Path, tmp_path: Path) -> None:
    """The logged rates after the change are those that a run with the new rate logs at the same steps; before it, the old ones."""
    whole = finished(kill_server, workspace, tmp_path / "whole", learning_rate=0.003, logging_steps=1)
    output_dir = copy(stopped, tmp_path / "run")
    outcome = run(kill_server, workspace, output_dir, learning_rate=0.003, logging_steps=1, allow_change="learning_rate,logging_steps")
    assert outcome.code == 0, outcome.output
    rates = logged_rates(output_dir)
    expected = logged_rates(whole)
    assert {step: rate for step, rate in rates.items() if step > 6} == {step: rate for step, rate in expected.items() if step > 6}
    assert rates[2] == pytest.approx(expected[2] * 0.01 / 0.003) and len(rates) == 9
    groups = json.loads((output_dir / "checkpoint-12" / "optimizer.json").read_text())["groups"]
    assert [group["initial_lr"] for group in groups] == [0.003] * len(groups)


def logged_rates(output_dir: Path) -> dict[int, float]:
    entries = [json.loads(line) for line in (output_dir / "trainer_log.jsonl").read_text().splitlines()]
    return {entry["current_steps"]: entry["lr"] for entry in entries if "lr" in entry}


def test_another_number_of_ranks_can_be_allowed(kill_server: Server, workspace: Workspace, stopped: Path, tmp_path: Path) -> None:
    """Half the rows on each of two ranks: the same batches, so the samples are the same."""
    output_dir = copy(stopped, tmp_path / "run")
    outcome = run(kill_server, workspace, output_dir, "train_on_two_ranks", per_device_train_batch_size=2,
                  allow_change="ranks,per_device_train_batch_size")
    assert outcome.code == 0, outcome.output
    state = json.loads((output_dir / "checkpoint-12" / "train_state.json").read_text())
    assert (state["samples_seen"], state["global_step"], state["epoch"], state["offset"]) == (44, 12, 2, 0)


def test_a_named_checkpoint_that_is_not_one(kill_server: Server, workspace: Workspace, stopped: Path, tmp_path: Path) -> None:
    output_dir = copy(stopped, tmp_path / "run")
    have = f"there are: {output_dir / 'checkpoint-3'}, {output_dir / 'checkpoint-6'}"
    (tmp_path / "empty").mkdir()
    copy(output_dir / "checkpoint-6", tmp_path / "damaged")
    (tmp_path / "damaged" / "train_state.json").unlink()
    manifest = copy(output_dir / "checkpoint-6", tmp_path / "altered") / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"step": 6', '"step": 9'))
    cases = {
        tmp_path / "nowhere": "path not found",
        tmp_path / "empty": f"resume_from_checkpoint: {tmp_path / 'empty'} is not a checkpoint",
        tmp_path / "altered": f"{tmp_path / 'altered'} is not a checkpoint, or its manifest.json is damaged; {have}",
        tmp_path / "damaged": f"error: {tmp_path / 'damaged'}: resume_from_checkpoint: train_state.json is missing; {have}",
    }
    for path, message in cases.items():
        outcome = run(kill_server, workspace, output_dir, "command_line", resume_from_checkpoint=path)
        assert outcome.code == 2 and message in refusal(outcome.output), outcome.output


@pytest.mark.effect("resume_from_checkpoint")
def test_an_older_checkpoint_by_name(kill_server: Server, workspace: Workspace, stopped: Path, tmp_path: Path) -> None:
    """From step 3 although 6 is there: the end is that of the whole run."""
    expected = results(finished(kill_server, workspace, tmp_path / "whole"))
    output_dir = copy(stopped, tmp_path / "run")
    outcome = run(kill_server, workspace, output_dir, resume_from_checkpoint=output_dir / "checkpoint-3")
    assert outcome.code == 0 and "(step 3)" in outcome.output, outcome.output
    assert results(output_dir) == expected


def test_another_runs_checkpoint_begins_a_branch(kill_server: Server, workspace: Workspace, stopped: Path, tmp_path: Path) -> None:
    """In a directory of its own, under an id of its own; the run it came from stays as it is."""
    expected = results(finished(kill_server, workspace, tmp_path / "whole"))
    source = copy(stopped, tmp_path / "source")
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    branch = tmp_path / "branch"
    outcome = run(kill_server, workspace, branch, resume_from_checkpoint=source / "checkpoint-6")
    assert outcome.code == 0, outcome.output
    assert results(branch) == expected
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
    assert json.loads((branch / "run.json").read_text())["run_id"] != json.loads((source / "run.json").read_text())["run_id"]
    changed = run(kill_server, workspace, tmp_path / "other", resume_from_checkpoint=source / "checkpoint-6", seed=1)
    assert changed.code == 2 and "(data_seed: 42 -> 1; seed: 42 -> 1)" in changed.output


def test_another_runs_checkpoint_where_a_run_is(kill_server: Server, workspace: Workspace, stopped: Path, tmp_path: Path) -> None:
    """Refused, for the two would mix; with overwrite the run that was there is set aside first."""
    output_dir = finished(kill_server, workspace, tmp_path / "run")
    named = copy(stopped, tmp_path / "source") / "checkpoint-6"
    outcome = run(kill_server, workspace, output_dir, "command_line", resume_from_checkpoint=named)
    assert outcome.code == 2 and f"{named} is of another run than the one in output_dir {output_dir}" in refusal(outcome.output)
    outcome = run(kill_server, workspace, output_dir, resume_from_checkpoint=named, overwrite_output_dir=True)
    assert outcome.code == 0 and "(step 6)" in outcome.output, outcome.output
    assert len(list(output_dir.glob("previous-*/checkpoint-*"))) == 2


def test_a_checkpoint_named_in_the_output_dir_wins_over_overwrite(
    kill_server: Server, workspace: Workspace, stopped: Path, tmp_path: Path
) -> None:
    """Many configurations carry overwrite_output_dir; to name a checkpoint there and set it aside would be absurd."""
    output_dir = copy(stopped, tmp_path / "run")
    outcome = run(kill_server, workspace, output_dir, resume_from_checkpoint=output_dir / "checkpoint-6", overwrite_output_dir=True)
    assert outcome.code == 0 and "(step 6)" in outcome.output, outcome.output
    assert list(output_dir.glob("previous-*")) == []


def test_none_where_a_run_was_is_refused(kill_server: Server, workspace: Workspace, stopped: Path, tmp_path: Path) -> None:
    output_dir = copy(stopped, tmp_path / "run")
    outcome = run(kill_server, workspace, output_dir, "command_line", resume_from_checkpoint="none")
    assert outcome.code == 2
    assert refusal(outcome.output) == (
        f"error: output_dir {output_dir} holds the checkpoints of another run; resume_from_checkpoint=auto goes on with it; "
        "overwrite_output_dir=true sets it aside")
    assert run(kill_server, workspace, tmp_path / "fresh", resume_from_checkpoint="none").code == 0


def test_overwrite_sets_the_old_run_aside(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    """Every byte of the old run is in previous-<run id>; the new one starts at step 1; files of the user stay."""
    output_dir = finished(kill_server, workspace, tmp_path / "run", seed=1)
    expected = results(finished(kill_server, workspace, tmp_path / "fresh"))
    (output_dir / "checkpoint-mine-precious").mkdir()
    (output_dir / "notes.txt").write_text("mine")
    mine = {output_dir / ".tunewright.lock", output_dir / "notes.txt"}
    before = {path.relative_to(output_dir): path.read_bytes() for path in output_dir.rglob("*") if path.is_file() and path not in mine}
    run_id = json.loads((output_dir / "run.json").read_text())["run_id"]
    outcome = run(kill_server, workspace, output_dir, overwrite_output_dir=True)
    assert outcome.code == 0 and f"the run that was in {output_dir} is now in {output_dir / f'previous-{run_id}'}" in outcome.output
    shelf = output_dir / f"previous-{run_id}"
    assert {path.relative_to(shelf): path.read_bytes() for path in shelf.rglob("*") if path.is_file()} == before
    assert (output_dir / "notes.txt").read_text() == "mine" and (output_dir / "checkpoint-mine-precious").is_dir()
    (output_dir / "checkpoint-mine-precious").rmdir()
    assert results(output_dir) == expected


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7", '{"run": 1}'])
def test_a_broken_record_is_refused(kill_server: Server, workspace: Workspace, stopped: Path, tmp_path: Path, text: str) -> None:
    output_dir = copy(stopped, tmp_path / "run")
    (output_dir / "run.json").write_text(text)
    outcome = run(kill_server, workspace, output_dir, "command_line")
    assert outcome.code == 2
    assert refusal(outcome.output) == (
        f"error: {output_dir / 'run.json'}: is not the record of a run; move the file away or choose another output_dir")


def test_a_lost_record_is_refused_where_checkpoints_are(kill_server: Server, workspace: Workspace, stopped: Path, tmp_path: Path) -> None:
    """A new run would put its checkpoints in their places. A checkpoint given by name goes on; overwrite sets them aside."""
    output_dir = copy(stopped, tmp_path / "run")
    (output_dir / "run.json").unlink()
    outcome = run(kill_server, workspace, output_dir, "command_line")
    assert outcome.code == 2 and "has checkpoints (checkpoint-6) but no run.json that says of which run" in refusal(outcome.output)
    named = copy(output_dir, tmp_path / "named")
    outcome = run(kill_server, workspace, named, resume_from_checkpoint=named / "checkpoint-6")
    assert outcome.code == 0 and "(step 6)" in outcome.output, outcome.output
    assert json.loads((named / "run.json").read_text())["run_id"] == json.loads((stopped / "run.json").read_text())["run_id"]
    outcome = run(kill_server, workspace, output_dir, overwrite_output_dir=True)
    (shelf,) = output_dir.glob("previous-*")
    assert outcome.code == 0 and sorted(path.name for path in shelf.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-6"]


def test_checkpoints_of_other_tools_do_not_disturb(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    """A directory of Hugging Face's Trainer in the way of step 3, and one that is not in the way."""
    output_dir = tmp_path / "run"
    for step in (3, 500):
        (output_dir / f"checkpoint-{step}").mkdir(parents=True)
        (output_dir / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    outcome = run(kill_server, workspace, output_dir)
    assert outcome.code == 0, outcome.output
    for name in ("set-aside-checkpoint-3", "checkpoint-500"):
        assert [path.name for path in (output_dir / name).iterdir()] == ["trainer_state.json"]


@pytest.mark.effect("save_only_model")
def test_weights_alone_cannot_be_continued(kill_server: Server, workspace: Workspace, tmp_path: Path) -> None:
    output_dir = tmp_path / "run"
    settings = workspace.settings(output_dir, save_only_model=True)
    assert kill_server.run(Case("train", {"settings": settings, "stop_after": 7}, str(output_dir))).code == KILLED
    outcome = run(kill_server, workspace, output_dir, "command_line", save_only_model=True)
    assert outcome.code == 2
    assert refusal(outcome.output).startswith(
        f"error: {output_dir / 'checkpoint-6'} was saved with save_only_model and cannot be continued; ")


def test_a_home_directory_is_one_place(
    kill_server: Server, workspace: Workspace, stopped: Path, tmp_path: Path
) -> None:
    """`~` in output_dir and in resume_from_checkpoint: lock, record, log and checkpoints are all in the same directory."""
    settings = workspace.settings(Path("~/run"), resume_from_checkpoint="~/source/checkpoint-6")
    copy(stopped, tmp_path / "source")
    outcome = kill_server.run(Case("tests.harness.scenarios:train_at_home", {"settings": settings, "home": str(tmp_path)}, str(tmp_path)))
    assert outcome.code == 0 and "(step 6)" in outcome.output, outcome.output
    assert {".tunewright.lock", "run.json", "trainer_log.jsonl", "checkpoint-12", "adapter_model.safetensors"} <= {
        path.name for path in (tmp_path / "run").iterdir()}


def test_a_parameter_that_is_newer_than_the_checkpoint_had_its_default(tmp_path: Path) -> None:
    """Its default lets the run go on; anything else is a change like others."""
    from tunewright.engine.checkpoint import Checkpoint
    from tunewright.engine.resume import demand_same_settings, recorded_settings

    current = recorded_settings(RunConfig(model=ModelConfig(model_name_or_path=str(write_model(tmp_path)))))
    old = {name: value for name, value in current.items() if name not in ("neftune_noise_alpha", "quantization_type")}
    checkpoint = Checkpoint(tmp_path / "checkpoint-3", 3, {"settings": old})
    demand_same_settings(checkpoint, current, ())
    with pytest.raises(InputError, match=r"other settings \(neftune_noise_alpha: null -> 5"):
        demand_same_settings(checkpoint, {**current, "neftune_noise_alpha": 5}, ())
